"""Training: from a design to a result."""
