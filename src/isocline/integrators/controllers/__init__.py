"""Controllers: which step comes next."""
