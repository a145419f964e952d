"""References that make a response verifiable: a reward, an annotator, a world and an evaluation."""

from alignbench import Register, hookimpl
from alignbench_verify.config import ArithmeticConfig, ReferenceConfig, VerifiedConfig, VerifyConfig


@hookimpl
def register_rewards(register: Register) -> None:
    register("verify", VerifyConfig, "alignbench_verify.reward:VerifyReward")


@hookimpl
def register_annotators(register: Register) -> None:
    register("reference", ReferenceConfig, "alignbench_verify.annotator:ReferenceAnnotator")


@hookimpl
def register_data(register: Register) -> None:
    register("arithmetic", ArithmeticConfig, "alignbench_verify.arithmetic.source:ArithmeticData")


@hookimpl
def register_evaluations(register: Register) -> None:
    register("verified", VerifiedConfig, "alignbench_verify.evaluation:Verified")
