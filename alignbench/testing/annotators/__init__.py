"""Checks of what annotators state of themselves."""
