"""Measures of a reward source: how well it tells better responses from worse, what it is biased towards, and what becomes of the
truth where responses are chosen by it."""
