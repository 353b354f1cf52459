"""Datasets: samples, whose they are, and where they come from.

Read data.py first. sources.py makes a Dataset of data by name, and with raw/ of a file or a frame.
"""
