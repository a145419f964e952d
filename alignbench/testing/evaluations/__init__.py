"""Checks of an evaluation: what holds of any (base); against what its author states of it, and subjects whose answers are written down."""
