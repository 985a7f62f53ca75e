"""What every room shares: errors, the registry of methods, random streams, estimates, safe files, progress."""
