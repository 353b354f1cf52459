"""What a run's directory keeps, to resume it bit for bit.

Read checkpoint.py first: which files there are, and in which order they are written. docs/formats.md is the format.
"""
