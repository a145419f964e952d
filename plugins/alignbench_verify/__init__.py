"""References that make a response verifiable: a reward, an annotator, a world and an evaluation."""

from alignbench import Register, hookimpl
from alignbench_verify.config import ArithmeticConfig, VerifiedConfig, VerifyConfig, VerifyingConfig


@hookimpl
def register_rewards(register: Register) -> None:
    register("verify", VerifyConfig, "alignbench_verify.reward:VerifyReward")


@hookimpl
def register_annotators(register: Register) -> None:
    register("verify", VerifyingConfig, "alignbench_verify.annotator:VerifyingAnnotator")


@hookimpl
def register_data(register: Register) -> None:
    register("arithmetic", ArithmeticConfig, "alignbench_verify.arithmetic.source:ArithmeticData")


@hookimpl
def register_evaluations(register: Register) -> None:
    register("verified", VerifiedConfig, "alignbench_verify.evaluation:Verified")
