"""Preferences: what pairs taught, on rankings that were held out."""
