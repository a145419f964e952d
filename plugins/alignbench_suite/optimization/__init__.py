"""Optimization: what the optimisation did to its own objective."""
