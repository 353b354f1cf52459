"""Raw columns, from files and frames, and how they become inputs and targets."""
