"""On which devices networks train, and how many of them at a time."""
