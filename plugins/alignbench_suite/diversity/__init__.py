"""Diversity: how different a checkpoint's responses are, per prompt and across prompts."""
