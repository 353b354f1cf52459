"""TrainConfig and what it says of the computation.

Read config.py first. recipe.py has the part that a kernel is compiled for, the rest are numbers of each network.
"""
