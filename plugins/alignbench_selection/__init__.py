"""Choosing the best of several responses: at inference, and to imitate it."""
