"""Reward sources: the reward model learned from rankings, the truth, and length alone."""

from alignbench import Register, hookimpl
from alignbench_rewards.config import GoldConfig, LearnedConfig, LengthConfig


@hookimpl
def register_rewards(register: Register) -> None:
    register("learned", LearnedConfig, "alignbench_rewards.learned:LearnedReward")
    register("gold", GoldConfig, "alignbench_rewards.given:GoldReward")
    register("length", LengthConfig, "alignbench_rewards.given:LengthReward")
