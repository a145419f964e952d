"""The simulator: what a policy becomes when what is wanted changes."""
