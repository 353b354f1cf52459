"""HTML pages that need no internet: one file has all that it shows.

Read page.py first. explained.py draws the steps of one network, report.py a run.
"""
