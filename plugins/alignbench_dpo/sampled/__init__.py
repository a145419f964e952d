"""Algorithms that learn from pairs which the policy, its reference or a mixture of both draw, and scores decide."""
