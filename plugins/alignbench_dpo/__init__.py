"""Direct preference optimisation and its family."""
