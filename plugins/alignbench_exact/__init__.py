"""A world small enough to write down every response: rewards, optimum and objective are exact."""

from alignbench import Register, hookimpl
from alignbench_exact.config import ExactAnnotatorConfig, ExactDataConfig, ExactEvaluationConfig


@hookimpl
def register_data(register: Register) -> None:
    register("exact", ExactDataConfig, "alignbench_exact.source:ExactData")


@hookimpl
def register_annotators(register: Register) -> None:
    register("exact", ExactAnnotatorConfig, "alignbench_exact.annotator:ExactAnnotator")


@hookimpl
def register_evaluations(register: Register) -> None:
    register("exact", ExactEvaluationConfig, "alignbench_exact.evaluation:ExactEvaluation")
