"""Runs that have ended, or were killed, taken up again: resumed, one network alone, replayed.

Read resume.py first: how a checkpoint becomes a Loop (runs/loop.py) again.
"""
