"""Refusals: of what is harmless, and of what is not."""
