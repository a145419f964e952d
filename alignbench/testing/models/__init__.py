"""Checks of a model: its log-probabilities and its files (base); sampling options, cut responses, roles that start from others."""
