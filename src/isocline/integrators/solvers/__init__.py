"""Solvers of the implicit equations inside a step."""
