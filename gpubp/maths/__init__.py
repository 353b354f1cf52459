"""Rules, the layout of a network, and operations whose bits depend on nothing but a network's own numbers.

Read activations.py first: value and slope side by side, a rule per row. losses.py, optimizers.py, schedules.py and
initialise.py are tables of the same kind.
"""
