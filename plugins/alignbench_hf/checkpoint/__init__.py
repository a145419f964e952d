"""From a model's name to a folder that can be loaded, and what is kept beside saved weights."""
