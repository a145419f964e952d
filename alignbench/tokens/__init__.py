"""From hidden states and logits to log-probabilities of tokens, and to tokens."""
