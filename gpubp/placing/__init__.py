"""On which devices networks train, and how many of them at a time. No bit depends on it.

Read placement.py first: what its placed() returns is all that runs/ knows of devices.
"""
