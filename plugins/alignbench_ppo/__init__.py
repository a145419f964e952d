"""Proximal policy optimisation with a KL penalty to the frozen SFT model."""

from alignbench import Register, hookimpl
from alignbench_ppo.config import PPOConfig


@hookimpl
def register_algorithms(register: Register) -> None:
    register("ppo", PPOConfig, "alignbench_ppo.ppo:PPO")
