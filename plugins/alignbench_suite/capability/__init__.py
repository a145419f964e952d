"""Capability: what alignment should not cost, and any task of lm-eval by name."""
