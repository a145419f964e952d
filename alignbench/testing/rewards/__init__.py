"""Checks of a reward source: what holds of any (base); against what its author states of it: its values, its options, how it is fitted."""
