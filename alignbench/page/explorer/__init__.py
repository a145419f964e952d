"""The results folder in a browser."""
