"""Policy gradients with a baseline from a group of responses: RLOO and GRPO."""

from alignbench import Register, hookimpl
from alignbench_group.config import GRPOConfig, RLOOConfig


@hookimpl
def register_algorithms(register: Register) -> None:
    register("rloo", RLOOConfig, "alignbench_group.rloo:RLOO")
    register("grpo", GRPOConfig, "alignbench_group.grpo:GRPO")
