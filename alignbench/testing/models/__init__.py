"""Checks of what a model is asked for beside log-probabilities: sampling options, cut responses, roles that start from others."""
