"""Policy gradients with a baseline from a group of responses: RLOO and GRPO."""
