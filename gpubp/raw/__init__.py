"""Raw columns, from files and frames, and how they become inputs and targets.

Read tables.py first: a Table is what every file and frame becomes. fitting.py then makes a Preparation of it
(preparation.py), which is saved with a run and prepares new samples in the same way.
"""
