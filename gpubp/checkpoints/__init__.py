"""What a run's directory keeps, to resume it bit for bit."""
