"""What each of two processes does: one update of every algorithm that shares batches, and what a policy answers.

    torchrun --nproc-per-node 2 tests/distributed/processes.py FILE

Alone (without torchrun) it does the same in one process. What came out is written to FILE."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from alignbench import (
    Annotator,
    DemonstrationBatch,
    Prompt,
    RewardSource,
    Samples,
    Sampling,
    Seeds,
    UserError,
    distributed,
    functional,
)
from alignbench.optimizer_config import LabelConfig, OptimizerConfig, PreferenceConfig, RolloutConfig
from alignbench.pipeline.experience import labels_of_pairs, pair_data, rollout_batches
from alignbench.pipeline.training import tokens
from alignbench.plugins import Component, Kind, registry
from alignbench.records import Consumes, PreferencePair
from alignbench.scoring import AnnotatorRanks
from tests import tiny

SIZES: Mapping[str, object] = {"batch_size": 12, "micro_batch_size": 5, "learning_rate": 1e-2, "updates": 2}


def algorithms() -> list[Component]:
    """Those that say that they share their batches."""
    return [
        c
        for c in registry().of(Kind.ALGORITHM)
        if c.load().shares_batches and c.config.consumes is not Consumes.NOTHING
    ]


def configured(component: Component) -> OptimizerConfig:
    known = set(component.config.__dataclass_fields__)
    sizes = {name: value for name, value in SIZES.items() if name in known}
    if component.config().__dict__.get("samples_per_prompt", 1) > 1:
        with contextlib.suppress(UserError):  # of an algorithm that makes pairs of two
            return component.config(**sizes, samples_per_prompt=4)
    return component.config(**sizes)


class Length(RewardSource):
    def score(self, samples: Samples) -> Tensor:
        return samples.sequences.response_mask.sum(1).float() + samples.sequences.response_ids[:, 0].float() / 10


class Paid(Annotator):
    """Prefers the longer answer; the main process alone pays for what it says."""

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool] = ()) -> tuple[int, ...]:
        by_length = sorted(responses, key=lambda answer: (-len(answer), answer))
        return functional.asked_once(lambda: tuple(map(by_length.index, responses)))


def batches(policy: tiny.HFPolicy, config: OptimizerConfig) -> Iterator[object]:
    if isinstance(config, RolloutConfig):
        ranked = AnnotatorRanks(lambda name: Paid(), config.samples_per_prompt)
        reward = ranked if config.asks_annotator else Length()
        yield from rollout_batches(policy, reward, tiny.PROMPTS, config, updates=2, seeds=Seeds(3))
    elif isinstance(config, PreferenceConfig | LabelConfig):
        words = [("a b", "c"), ("b", "d d d"), ("e f", "a a"), ("f", "b c d")]
        pairs = [PreferencePair(p, *pair, probability=0.8) for p in tiny.PROMPTS for pair in words][
            : config.batch_size + 1
        ]
        for _ in range(2):
            labels = isinstance(config, LabelConfig)
            yield labels_of_pairs(policy, pairs, config).rows if labels else pair_data(policy, pairs, config).pairs
    else:
        for _ in range(2):
            yield DemonstrationBatch(tiny.sequences(policy))


def updated(component: Component, name: str, **model: object) -> dict[str, Tensor]:
    return updates_of(tiny.scratch(**model), component, name)


def updates_of(policy: tiny.HFPolicy, component: Component, name: str, **sizes: object) -> dict[str, Tensor]:
    """Weights, figures and what was fed, of two updates."""
    config = dataclasses.replace(configured(component), **sizes)
    policy.freeze_reference()
    optimizer = component.load()(config, policy=policy, updates=2, seeds=Seeds(0))
    found: dict[str, Tensor] = {}
    for number, batch in enumerate(batches(policy, config)):
        report = optimizer.update(batch)
        found[f"{name}/{number}/tokens"] = torch.tensor(float(tokens(batch)))  # type: ignore[arg-type]
        for figure, value in report.metrics.items():
            found[f"{name}/{number}/{figure}"] = torch.tensor(value)
    for i, parameter in enumerate(policy.trainable()):
        found[f"{name}/weights/{i}"] = parameter.detach().clone()
    return found


def answers() -> dict[str, Tensor]:
    """Sampling, scores without gradients and values, in batches that do not divide evenly."""
    policy = tiny.scratch(generation_batch_size=3, scoring_batch_size=3)
    rollout = policy.generate(tiny.PROMPTS[:5], Sampling(), n=1, rng=torch.Generator().manual_seed(0))
    sequences = rollout.samples.sequences
    role = policy.scalar("value")
    with torch.no_grad():
        role.head.read.weight.fill_(0.1)  # type: ignore[attr-defined]
        scores = policy.logprobs(sequences, entropy=True)
        values = role.values(sequences)
    one = policy.generate(tiny.PROMPTS[:1], Sampling(), n=1, rng=torch.Generator().manual_seed(1))
    assert scores.entropy is not None
    return {
        "ids": sequences.response_ids.float(),
        "sampled": rollout.logprobs,
        "finished": rollout.samples.finished.float(),
        "logprobs": scores.logprobs,
        "entropy": scores.entropy,
        "values": functional.masked_sum(values[:, :-1], sequences.response_mask, 1),
        "alone": one.samples.sequences.response_ids.float(),  # one row for two processes
    }


def calls(act: Callable[[], object]) -> Tensor:
    """How often `act` has the processes put something together."""
    count, group = 0, torch.distributed
    named = {name: getattr(group, name) for name in ("all_reduce", "all_gather_object", "broadcast_object_list")}

    def counting(name: str) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            nonlocal count
            count += 1
            return named[name](*arguments)

        return counted

    for name in named:
        setattr(group, name, counting(name))
    try:
        act()
    finally:
        for name, own in named.items():
            setattr(group, name, own)
    return torch.tensor(float(count))


def collectives() -> dict[str, Tensor]:
    """Of an update of supervised fine-tuning, and what sums of figures come to: of many, and of one that only some have."""
    policy = tiny.scratch(num_layers=6)
    component = next(c for c in algorithms() if c.name == "sft")
    optimizer = component.load()(configured(component), policy=policy, updates=2, seeds=Seeds(0))
    batch = DemonstrationBatch(tiny.sequences(policy))
    rank, size = distributed.rank(), distributed.world_size()
    many = {f"{i}": float(i) / size for i in reversed(range(3 * distributed.FIGURES))}
    uneven = {"both": 1.0 / size} | ({"first": 2.0} if rank == 0 else {})
    found = {"of an update": calls(lambda: optimizer.update(batch)), "tensors": torch.tensor(len(policy.trainable()))}
    found |= {f"many {name}": torch.tensor(value) for name, value in distributed.total(many).items()}
    return found | {f"uneven {name}": torch.tensor(value) for name, value in distributed.total(uneven).items()}


def main(path: str) -> None:
    torch.set_num_threads(1)
    with distributed.joined("cpu"):
        found = answers() | {f"collectives/{name}": figure for name, figure in collectives().items()}
        for component in algorithms():
            found |= updated(component, component.name)
            if component.config.scalar_roles:
                found |= updated(component, f"{component.name} on one trunk", value_trunk="shared")
        if distributed.is_main():
            save_file({name: tensor.contiguous() for name, tensor in found.items()}, path)


if __name__ == "__main__":
    main(sys.argv[1])
