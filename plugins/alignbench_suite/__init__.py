"""The built-in evaluations: helpfulness, sycophancy, diversity and optimization, one family per file."""

from alignbench import Register, hookimpl
from alignbench_suite.config import DiversityConfig, HelpfulnessConfig, OptimizationConfig, SycophancyConfig


@hookimpl
def register_evaluations(register: Register) -> None:
    register("helpfulness", HelpfulnessConfig, "alignbench_suite.helpfulness:Helpfulness")
    register("sycophancy", SycophancyConfig, "alignbench_suite.sycophancy:Sycophancy")
    register("diversity", DiversityConfig, "alignbench_suite.diversity:Diversity")
    register("optimization", OptimizationConfig, "alignbench_suite.optimization:Optimization")
