"""The built-in evaluations: helpfulness, sycophancy, diversity, optimization and capability, one family per file; `tasks/` holds
the questions that lm-eval can ask of any model."""

from alignbench import Register, hookimpl
from alignbench_suite.config import (
    CapabilityConfig,
    DiversityConfig,
    HelpfulnessConfig,
    OptimizationConfig,
    SycophancyConfig,
    TasksConfig,
)


@hookimpl
def register_evaluations(register: Register) -> None:
    register("helpfulness", HelpfulnessConfig, "alignbench_suite.helpfulness:Helpfulness")
    register("sycophancy", SycophancyConfig, "alignbench_suite.sycophancy:Sycophancy")
    register("diversity", DiversityConfig, "alignbench_suite.diversity:Diversity")
    register("optimization", OptimizationConfig, "alignbench_suite.optimization:Optimization")
    register("capability", CapabilityConfig, "alignbench_suite.capability:Capability")
    register("tasks", TasksConfig, "alignbench_suite.capability:Tasks")
