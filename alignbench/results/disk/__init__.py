"""A run's directory as it is written and read."""
