"""Steps of one network with every number, and what was not finite first in one that diverged.

Read steps.py first: it takes steps as engine eager does and records them; text.py prints what it recorded.
"""
