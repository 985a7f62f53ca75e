"""Learned differential equations, discretised well."""
