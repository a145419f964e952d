"""What is known of the data of a run before it learns from it."""
