"""What a stage artifact is named by: a digest of everything that went into it.

The settings and the source code of the components that made it, the data itself, the seed, and the versions and the kind
of machine that decide the last bit. An artifact is found only by a run that would make the same one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alignbench import distributed
from alignbench.artifacts import FORMAT
from alignbench.config import RunConfig, Selected
from alignbench.contracts import DataSource, Policy, RewardSource
from alignbench.records import Demonstration, Prompt, Ranking, Sequences
from alignbench.results.environment import counts, package_versions

_DECIDING = ("bitsandbytes", "numpy", "peft", "python", "tokenizers", "torch", "transformers")
_NOT_CORE = ("results", "testing")  # parts of the core that cannot change what a stage makes


def digest(*parts: Any) -> str:
    """24 hexadecimal digits of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:24]


def environment(device: torch.device) -> dict[str, Any]:
    """What decides the last bit: versions, our own code, the kind of processor, threads and processes."""
    versions = package_versions()
    gpu = device.type == "cuda"
    return {
        "format": FORMAT,
        "versions": {name: versions.get(name) for name in _DECIDING},
        "code": source_hash("alignbench"),
        "device": torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }


def component(chosen: Selected) -> dict[str, Any]:
    """A component: which one, its settings, and the source of the package that it comes from."""
    return {
        "name": chosen.component.name,
        "config": dataclasses.asdict(chosen.config),
        "target": chosen.component.target,
        "code": source_hash(chosen.component.target.partition(":")[0].partition(".")[0]),
    }


@functools.cache
def source_hash(package: str) -> str:
    """A digest of a package's Python files: a version number does not change when somebody edits a plugin."""
    spec = importlib.util.find_spec(package)
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    files = [(path, path.relative_to(root)) for root in roots for path in sorted(root.rglob("*.py"))]
    if spec and spec.origin and not roots:
        files = [(Path(spec.origin), Path(spec.origin).name)]  # type: ignore[list-item]
    found = hashlib.sha256()
    for path, name in files:
        if package != "alignbench" or Path(name).parts[0] not in _NOT_CORE:
            found.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:24]


def of_prompts(prompts: Iterable[Prompt]) -> str:
    return digest(*(_prompt(prompt) for prompt in prompts))


def of_demonstrations(demonstrations: Iterable[Demonstration]) -> str:
    return digest(*((_prompt(d.prompt), d.response) for d in demonstrations))


def of_rankings(rankings: Iterable[Ranking]) -> str:
    return digest(*((_prompt(r.prompt), r.responses, r.ranks, r.finished) for r in rankings))


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
    )


# The artifacts of a run; each key holds those of the stages before it


def of_sft(config: RunConfig, data: DataSource, policy: Policy, device: torch.device) -> str:
    return digest(
        "sft",
        environment(device),
        config.seed,
        component(config.model),
        policy.fingerprint(),
        component(config.data),
        component(config.pretrain),
        component(config.start),
        dataclasses.asdict(config.budget) if config.imitates else None,
        "" if policy.pretrained else of_demonstrations(data.lessons()),
        of_demonstrations(data.demonstrations()),
    )


def of_ranked(sft_key: str, config: RunConfig, prompts: Sequence[Prompt]) -> str:
    return digest(
        "rankings",
        sft_key,
        component(config.annotator),
        dataclasses.asdict(config.rankings),
        of_prompts(prompts),
    )


def of_component(chosen: Selected) -> str:
    return digest(component(chosen))


def of_source(chosen: Selected, source: RewardSource) -> str:
    return digest(component(chosen), source.fingerprint())


def of_reward(
    sft_key: str,
    source_key: str,
    config: RunConfig,
    train: Sequence[Ranking],
    held_out: Sequence[Ranking],
    prompts: Sequence[Prompt],
) -> str:
    return digest(
        "reward",
        sft_key,
        source_key,
        component(config.annotator),
        [of_rankings(train), of_rankings(held_out)],
        of_prompts(prompts),
    )


def of_evaluation(sft_key: str, reward_key: str, judge_key: str, config: RunConfig, questions: Sequence[Prompt]) -> str:
    return digest(
        "evaluation",
        sft_key,
        reward_key,
        {name: value for name, value in dataclasses.asdict(config.eval).items() if counts(f"eval.{name}")},
        [component(chosen) for chosen in config.evaluations],
        judge_key,
        of_prompts(questions),
    )
