"""One run: its stages, the training loop, its life on disk, and evaluating what was trained."""
