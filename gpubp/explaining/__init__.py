"""One step of one network with every number."""
