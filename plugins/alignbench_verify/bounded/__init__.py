"""Code that may run wild, in processes of its own: bounded in time and memory, and ended with all that it started."""
