"""Which devices networks train on, and how many of them at a time. No bit depends on it.

Read placement.py first: the result of placed() is all that runs/ knows about devices.
"""
