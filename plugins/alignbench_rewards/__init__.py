"""Reward sources: learned from rankings, a model of its own, a function, a judge, the truth, length, and mixtures of them."""

from alignbench import Register, hookimpl
from alignbench_rewards.config import (
    FunctionConfig,
    GoldConfig,
    HeldOutConfig,
    HFConfig,
    JudgeAnnotatorConfig,
    JudgeConfig,
    LearnedConfig,
    LengthConfig,
    MixConfig,
)


@hookimpl
def register_annotators(register: Register) -> None:
    register("judge", JudgeAnnotatorConfig, "alignbench_rewards.ai_feedback:JudgeAnnotator")


@hookimpl
def register_rewards(register: Register) -> None:
    register("learned", LearnedConfig, "alignbench_rewards.learned:LearnedReward")
    register("gold", GoldConfig, "alignbench_rewards.given:GoldReward")
    register("length", LengthConfig, "alignbench_rewards.given:LengthReward")
    register("function", FunctionConfig, "alignbench_rewards.function:FunctionReward")
    register("hf", HFConfig, "alignbench_rewards.classifier:HFReward")
    register("judge", JudgeConfig, "alignbench_rewards.judge:JudgeReward")
    register("mix", MixConfig, "alignbench_rewards.mix:MixReward")


@hookimpl
def register_stages(register: Register) -> None:
    register("held_out_accuracy", HeldOutConfig, "alignbench_rewards.held_out:HeldOut")
