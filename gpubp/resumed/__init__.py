"""Runs that have ended or were killed, taken up again: resumed, replayed, or one network alone.

Read resume.py first: how a checkpoint becomes a Loop (runs/loop.py) again.
"""
