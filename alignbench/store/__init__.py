"""What outlives a process: stages that runs share, by what went into them, and checkpoints of unfinished ones."""
