"""What can be scaffolded: the kinds of plugins, and what the templates are told of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignbench.plugins import Kind


@dataclass(frozen=True)
class Template:
    """A kind of plugin. `folder`: its own part of the templates. `module` and `suffix` name the file that does the work and, after the
    plugin's name, what stands in it. `run`: what a small run with it is given, {name} being the component's. `presets`: whether it brings YAML."""

    kind: Kind
    folder: str
    module: str
    suffix: str
    run: str
    presets: bool = False
    function: bool = False

    def target(self, name: str) -> str:
        """What is registered, in `module`: a class, or of a schedule a function."""
        return name if self.function else f"{camel(name).removesuffix(self.suffix)}{self.suffix}"


TEMPLATES: Mapping[str, Template] = {
    "algorithm:rollouts": Template(
        Kind.ALGORITHM, "algorithm_rollouts", "algorithm", "", "experiment=exact algo={name}", presets=True
    ),
    "algorithm:pairs": Template(
        Kind.ALGORITHM, "algorithm_pairs", "algorithm", "", "experiment=exact algo={name}", presets=True
    ),
    "reward": Template(Kind.REWARD, "reward", "reward", "Reward", "experiment=exact reward={name}"),
    "data": Template(Kind.DATA, "data", "source", "Data", "data={name} reward=gold"),
    "evaluation": Template(
        Kind.EVALUATION, "evaluation", "evaluation", "Evaluation", "experiment=exact 'eval.families=[exact,{name}]'"
    ),
    "annotator": Template(
        Kind.ANNOTATOR, "annotator", "annotator", "Annotator", "experiment=exact reward=learned annotator={name}"
    ),
    "model": Template(
        Kind.MODEL,
        "model",
        "policy",
        "Policy",
        "experiment=exact model={name} model.max_response_tokens=2",
        presets=True,
    ),
    "sampler": Template(Kind.SAMPLER, "sampler", "sampler", "Sampler", "experiment=exact model.sampler={name}"),
    # Plain gradient descent takes steps as small as the gradient: at Adam's rate it would hardly move.
    "optimizer": Template(
        Kind.OPTIMIZER, "optimizer", "optimizer", "", "experiment=exact algo.optimizer={name} algo.learning_rate=1"
    ),
    "schedule": Template(
        Kind.SCHEDULE, "schedule", "schedule", "", "experiment=exact algo.lr_schedule={name}", function=True
    ),
    "stage": Template(Kind.STAGE, "stage", "stage", "Stage", "experiment=exact 'stages=[{name}]'"),
    "format": Template(Kind.FORMAT, "format", "layout", "Format", "data rows.jsonl data.format={name}"),
    "tracker": Template(Kind.TRACKER, "tracker", "tracker", "Tracker", "experiment=exact tracker={name}"),
}


def camel(name: str) -> str:
    """my_algorithm: MyAlgorithm."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
