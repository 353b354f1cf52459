"""TrainConfig and what it says of the computation."""
