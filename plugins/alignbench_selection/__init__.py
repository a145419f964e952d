"""Choosing the best of several responses: at inference, and to imitate it."""

from alignbench import Register, hookimpl
from alignbench_selection.config import BestOfNConfig, RejectionSamplingConfig


@hookimpl
def register_algorithms(register: Register) -> None:
    register("best_of_n", BestOfNConfig, "alignbench_selection.best_of_n:BestOfN")
    register("rejection_sampling", RejectionSamplingConfig, "alignbench_selection.rejection:RejectionSampling")
