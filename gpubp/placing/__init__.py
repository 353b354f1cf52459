"""On which devices networks train, and how many of them at a time. No bit depends on it.

Read placement.py first: the loop of runs/ knows a Place, and no device.
"""
