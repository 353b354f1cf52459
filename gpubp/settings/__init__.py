"""TrainConfig and what it says about the computation.

Read config.py first. recipe.py has the part that a kernel is compiled for; the rest is numbers of each network.
"""
