"""Sycophancy: whether the answers follow the user rather than the truth."""
