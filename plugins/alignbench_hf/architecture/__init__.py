"""What differs between the architectures of transformers: how they are read, what their logits are, what of them is adapted."""
