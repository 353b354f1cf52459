"""What training returns, its table, and predictions with it.

Read result.py first. model.py is the way back from a run's directory to predictions on raw samples.
"""
