"""Methods: one step of an equation."""
