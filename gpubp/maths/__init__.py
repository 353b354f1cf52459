"""Rules, the layout of a network, and operations whose bits depend on nothing else."""
