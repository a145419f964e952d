"""Checks of an annotator: what holds of any (base), and what it states of itself."""
