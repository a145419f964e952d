"""The built-in evaluations: helpfulness, sycophancy, diversity, optimization, preferences, capability and refusals, a folder each. Beside
the folders is what several families use; `tasks/` holds the questions that lm-eval can ask of any model."""

from alignbench import Register, hookimpl
from alignbench_suite.config import (
    CapabilityConfig,
    DiversityConfig,
    HelpfulnessConfig,
    OptimizationConfig,
    PreferencesConfig,
    RefusalsConfig,
    SycophancyConfig,
    TasksConfig,
)


@hookimpl
def register_evaluations(register: Register) -> None:
    register("helpfulness", HelpfulnessConfig, "alignbench_suite.helpfulness.evaluation:Helpfulness")
    register("sycophancy", SycophancyConfig, "alignbench_suite.sycophancy.evaluation:Sycophancy")
    register("diversity", DiversityConfig, "alignbench_suite.diversity.evaluation:Diversity")
    register("optimization", OptimizationConfig, "alignbench_suite.optimization.evaluation:Optimization")
    register("preferences", PreferencesConfig, "alignbench_suite.preferences.evaluation:Preferences")
    register("capability", CapabilityConfig, "alignbench_suite.capability.evaluation:Capability")
    register("refusals", RefusalsConfig, "alignbench_suite.refusals.evaluation:Refusals")
    register("tasks", TasksConfig, "alignbench_suite.capability.evaluation:Tasks")
