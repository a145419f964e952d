"""Reward sources: the reward model learned from rankings."""

from alignbench import Register, hookimpl
from alignbench_rewards.config import LearnedConfig


@hookimpl
def register_rewards(register: Register) -> None:
    register("learned", LearnedConfig, "alignbench_rewards.learned:LearnedReward")
