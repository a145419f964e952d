"""The checks, one file for each family: whether a response is what its reference asks for."""
