"""What training returns, its table, and predictions with it."""
