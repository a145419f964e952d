"""One file for each `alignbench <command>`."""
