"""Gradient modes: how derivatives of a solution are had."""
