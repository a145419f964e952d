"""What a stage artifact is named by: a digest of everything that went into it.

The settings and the source code of the components that made it, the data itself, the seed, and the versions and the kind
of machine that decide the last bit. An artifact is found only by a run that would make the same one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import alignbench
from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.contracts import DataSource, Evaluation, Policy
from alignbench.plugins import registry
from alignbench.records import Demonstration, Prompt, Ranking, Sequences, Split
from alignbench.records.stages import StagePlace
from alignbench.results.disk.environment import package_versions
from alignbench.selection import Selected, digest, package_digest, source_digest
from alignbench.store.artifacts import FORMAT

DECIDING = ("bitsandbytes", "numpy", "peft", "python", "tokenizers", "torch", "transformers")
OF_STAGES = (
    "contracts",
    "records",
    "pretrained",
    "pipeline",
    "evaluation",
    "store",
    "optimization",
    "results/compared/statistics.py",
)
"""The wings and files of the core that can change what a stage makes, beside the files at its front. What stages write is named by FORMAT."""


OF_ANSWERS = ("questions", "samples", "temperature")
"""What decides the SFT model's own answers. What is measured in them stands with the evaluations that were chosen: of `eval.options`
a run's config.yaml holds theirs alone."""


def environment(device: torch.device) -> dict[str, Any]:
    """What decides the last bit: versions, our own code, the kind of processor, threads and processes."""
    versions = package_versions()
    gpu = device.type == "cuda"
    return {
        "format": FORMAT,
        "versions": {name: versions.get(name) for name in DECIDING},
        "code": core_digest(),
        "device": torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }


@functools.cache
def core_digest(root: Path = Path(alignbench.__file__).parent) -> str:
    """Of the core's source that can change what a stage makes: a command, a table or the kit does not."""
    wings = [
        path
        for wing in OF_STAGES
        for path in ((root / wing).rglob("*.py") if (root / wing).is_dir() else [root / wing])
    ]
    return source_digest((path.relative_to(root).as_posix(), path) for path in sorted([*root.glob("*.py"), *wings]))


def of_code(config: RunConfig) -> str:
    """Of the source of the core, of every component that a run chose, and of those that its options name, as the parts of a mixed
    reward: what decides its numbers beside its settings."""
    return _of_sources([config.algo, *_of_start(config), config.reward, config.annotator, *config.stages])


def of_baseline_code(config: RunConfig, *, annotator: bool, reward: bool) -> str:
    """The same of the SFT model's row, whatever algorithm goes on from it; the flags tell whether the row depends on them."""
    return _of_sources(
        [*_of_start(config), *([config.reward] if reward else []), *([config.annotator] if annotator else [])]
    )


def _of_start(config: RunConfig) -> list[Selected]:
    judge = [config.judge] if config.judge else []
    before = config.stages_at(StagePlace.BEFORE_SFT)
    return [config.sft, config.pretrain, config.model, config.data, *before, *judge, *config.evaluations]


def _of_sources(chosen: Sequence[Selected]) -> str:
    named = {text for each in chosen for text in _words(dataclasses.asdict(each.config))}
    parts = [component for component in registry().components.values() if component.name in named]
    packages = {component.package for component in [*(each.component for each in chosen), *parts]}
    return digest(core_digest(), [package_digest(package) for package in sorted(packages)])


def _words(value: Any) -> Iterator[str]:
    """Every text in a component's options, names of entries included."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _words(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)
    elif isinstance(value, str):
        yield value


def of_prompts(prompts: Iterable[Prompt]) -> str:
    return digest(*(_prompt(prompt) for prompt in prompts))


def of_demonstrations(demonstrations: Iterable[Demonstration]) -> str:
    return digest(*((_prompt(d.prompt), d.response) for d in demonstrations))


def of_rankings(rankings: Iterable[Ranking]) -> str:
    # The ratings behind the ranks are margins of a reward model's loss; without any, keys are what they were before they counted.
    rows = ((_prompt(r.prompt), r.responses, r.ranks, r.finished, *([r.scores] if r.scores else [])) for r in rankings)
    return digest(*rows)


def of_set_aside(data: DataSource) -> str:
    """What a stage sees of the data beside what is trained on."""
    labelled = ((_prompt(one.prompt), one.response, one.good, one.finished) for one in data.labelled())
    return digest(of_prompts(data.prompts(Split.EVALUATION)), *labelled)


def of_tokens(sequences: Sequences) -> str:
    rows = zip(
        *(part.tolist() for part in vars(sequences).values()),
        strict=True,
    )
    return digest(*rows)


def _prompt(prompt: Prompt) -> Sequence[Any]:
    info: Mapping[str, Any] = prompt.info
    return (
        prompt.id,
        [(m.role, m.content) for m in prompt.messages],
        prompt.opinion,
        prompt.cluster,
        sorted(info.items()),
        repr(prompt.reference),
        prompt.subset,
    )


# The artifacts of a run; each key holds those of the stages before it


def of_stage(chosen: Selected, *, before: str) -> str:
    """Of a stage of one's own: its settings, its package's source, and all that went before it."""
    return digest("stage", before, chosen.identity())


def of_beginning(config: RunConfig, data: DataSource, policy: Policy, prompts: Sequence[Prompt]) -> str:
    """All that there is before SFT."""
    return digest(
        environment(policy.device),
        config.seed,
        config.model.identity(),
        policy.fingerprint(),
        config.data.identity(),
        of_prompts(prompts),
        of_demonstrations(data.demonstrations()),
        of_set_aside(data),
    )


def of_sft(
    config: RunConfig, data: DataSource, policy: Policy, demonstrations: Sequence[Demonstration], *, stages: str = ""
) -> str:
    """`stages`: the key of those of one's own before it, where there are some."""
    return digest(
        "sft",
        environment(policy.device),
        config.seed,
        config.model.identity(),
        policy.fingerprint(),
        config.data.identity(),
        config.pretrain.identity(),
        config.start.identity(),
        dataclasses.asdict(config.budget) if config.imitates else None,
        "" if policy.pretrained else of_demonstrations(data.lessons()),
        of_demonstrations(demonstrations),
        stages,
    )


def of_ranked(config: RunConfig, prompts: Sequence[Prompt], *, sft: str, annotator: str) -> str:
    """`annotator`: what it says of itself (`Annotator.fingerprint`)."""
    ranked = config.annotator.identity(), annotator, dataclasses.asdict(config.rankings)
    return digest("rankings", sft, ranked, of_prompts(prompts))


def of_source(chosen: Selected, fingerprint: str) -> str:
    """Of a reward source that says this of itself (`RewardSource.fingerprint`)."""
    return digest(chosen.identity(), fingerprint)


def of_reward(
    config: RunConfig,
    train: Sequence[Ranking],
    held_out: Sequence[Ranking],
    prompts: Sequence[Prompt],
    *,
    sft: str,
    source: str,
) -> str:
    ranked = config.annotator.identity(), of_rankings(train), of_rankings(held_out)
    return digest("reward", sft, source, ranked, of_prompts(prompts))


def of_frontier(prompts: Sequence[Prompt], *, n: int, temperature: float, sft: str, reward: str) -> str:
    return digest("frontier", sft, reward, n, temperature, of_prompts(prompts))


def of_evaluation(
    config: RunConfig,
    evaluations: Sequence[Evaluation],
    questions: Sequence[Prompt],
    held_out: Sequence[Ranking],
    *,
    sft: str,
    reward: str,
    judge: str,
) -> str:
    settings = {name: getattr(config.eval, name) for name in OF_ANSWERS}
    chosen = [evaluation.identity() for evaluation in config.evaluations]
    asked = [evaluation.fingerprint() for evaluation in evaluations], of_prompts(questions), of_rankings(held_out)
    return digest("evaluation", sft, reward, settings, chosen, judge, asked)
