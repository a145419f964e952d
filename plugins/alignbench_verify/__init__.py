"""References that make a response verifiable: a reward, a world and an evaluation."""
