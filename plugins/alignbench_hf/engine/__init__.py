"""Engines: programs of their own that sample, given the base once and the adapters after every update."""
