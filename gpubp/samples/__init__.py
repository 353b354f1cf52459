"""Datasets: samples, which networks train on them, and where they come from.

Read data.py first. sources.py makes a Dataset from data by name and, with raw/, from a file or a frame.
"""
