"""Evaluation of a checkpoint: its responses once, then every family of metrics on them."""
