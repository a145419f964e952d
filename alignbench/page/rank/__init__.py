"""Ranking by people."""
