"""A world small enough to write down every response: exact optima."""
