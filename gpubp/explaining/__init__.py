"""Steps of one network with every number, and what first was not finite in a network that diverged.

Read steps.py first: it takes steps as engine eager does and records them; text.py prints the record.
"""
