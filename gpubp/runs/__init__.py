"""Training: from a design to a result.

Read training.py first, then loop.py, the loop over rounds, and run.py, what a round does with one population.
"""
