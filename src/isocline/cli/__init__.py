"""The `isocline` command."""
