"""Runs that have ended, taken up again: resumed, one network alone, replayed."""
