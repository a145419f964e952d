"""Checks of an evaluation against what its author states of it, and subjects whose answers are written down."""
