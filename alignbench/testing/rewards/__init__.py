"""Checks of a reward source against what its author states of it: its values, its options, how it is fitted."""
