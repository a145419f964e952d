"""What is asked of a model that has just been loaded, before it is trained."""
