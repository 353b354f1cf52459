"""Datasets: samples, whose they are, and where they come from."""
