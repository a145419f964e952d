"""The results folder, to look at."""
