"""`alignbench plan`: the memory that a run would take, by stage and part, estimated before a model is loaded."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alignbench.app.config import RunConfig
from alignbench.errors import UserError
from alignbench.optimizer_config import OptimizerConfig
from alignbench.pipeline.memory import GIB, PROCESS, REWARD, Machine, Stage, estimate, tokenizer_of
from alignbench.results.disk import environment
from alignbench.seeds import Seeds
from alignbench.selection import Selected

MOST_MEMORY = 1_000_000
DESCRIPTION = "Reads a run's data and estimates its peak memory by stage and part, from the model's config alone. Exit code 1: it does not fit."
CUDA_CONTEXT = GIB // 2
"""What CUDA's context and libraries take of a GPU beside the tensors: half a GiB, as is usual."""
Change = tuple[str, Any]
"""A setting by its dotted name, and a value for it."""


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the run fits, else 1."""
    parser = argparse.ArgumentParser("alignbench plan", description=DESCRIPTION)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as of a run: model=smollm2 algo=ppo")
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="of the GPU (default: this machine's; RAM with device=cpu)"
    )
    chosen = parser.parse_intermixed_args(list(arguments))
    if chosen.memory is not None and not 0 < chosen.memory <= MOST_MEMORY:
        raise UserError(f"--memory {chosen.memory:g} must be above 0 and at most {MOST_MEMORY:,}, in GiB.")
    from alignbench.app.compose import load_config

    config = load_config(chosen.overrides)
    tokenizer = read(config)
    config.model.load()  # so that the libraries of a run count among what this process takes
    machine = this_machine(config.device, chosen.memory)
    stages = estimate(config, machine, tokenizer)
    print_table(stages)
    peak = max(stages, key=lambda stage: stage.total)
    fits = peak.total <= machine.limit
    memory = "GPU memory" if machine.device == "cuda" else "RAM"
    verdict = "it fits" if fits else "it does not fit"
    print(
        f"\nPeak: {peak.total / GIB:.2f} GiB in {peak.name}, of {machine.limit / GIB:.1f} GiB of {memory}: {verdict}."
    )
    if not fits:
        print(remedy(config, machine, tokenizer))
    return int(not fits)


def read(config: RunConfig) -> Callable[[], Any]:
    """Reads the data as the run would, and refuses what the run would refuse. Gives what the data source's tokenizer is."""
    from rich.console import Console

    from alignbench.pipeline.display import Display
    from alignbench.pipeline.preparation import read_data

    return functools.cache(read_data(config, Seeds(config.seed), Display(Console(quiet=True))).source.tokenizer)


def this_machine(device: str, memory: float | None) -> Machine:
    """What `device` means here; with `memory` (GiB) it is a GPU of that size, unless it is the CPU."""
    import torch

    gpu = torch.cuda.is_available()
    if device.startswith("cuda") or (device == "auto" and (gpu or memory is not None)):
        if memory is None and not gpu:
            raise UserError(f"device={device}: this machine has no usable GPU: say what it has, as in --memory 24.")
        size = int(memory * GIB) if memory is not None else torch.cuda.get_device_properties(0).total_memory
        return Machine("cuda", size, CUDA_CONTEXT)
    size = environment.memory_bytes() if memory is None else int(memory * GIB)
    return Machine("cpu", size, environment.resident_bytes())


def remedy(config: RunConfig, machine: Machine, tokenizer: Callable[[], Any] | None = None) -> str:
    """One line: the two settings that make it fit, either alone or both together, at the mildest values that do."""
    settings, tokenizer = dict(_settings(config)), tokenizer or tokenizer_of(config)

    def peak(*changes: Change) -> int:
        return max(stage.total for stage in estimate(changed(config, changes), machine, tokenizer))

    def first(choices: Sequence[tuple[Change, ...]]) -> tuple[Change, ...] | None:
        return next((changes for changes in choices if peak(*changes) <= machine.limit), None)

    alone = [found for name, values in settings.items() if (found := first([((name, value),) for value in values]))]
    if alone:
        return f"It fits with {' or '.join(_words(changes) for changes in alone[:2])}."
    both = [
        (i + j, ((one, value), (other, second)))
        for one, other in itertools.combinations(settings, 2)
        for i, value in enumerate(settings[one])
        for j, second in enumerate(settings[other])
    ]
    pairs = [changes for _, changes in sorted(both, key=lambda ranked: ranked[0])]
    if found := first(pairs):
        return f"It fits with {_words(found)}."
    if not pairs:
        return "No setting takes less: choose a smaller model, or more memory."
    nearest = min(pairs, key=lambda changes: peak(*changes))
    return (
        f"No two settings make it fit: {_words(nearest)} come nearest, with {peak(*nearest) / GIB:.2f} GiB. "
        "Choose a smaller model, or more memory."
    )


def _settings(config: RunConfig) -> Iterator[tuple[str, list[Any]]]:
    """Settings that can take less memory, each with its values, mildest first."""
    for slot in ("algo",) if config.imitates else ("algo", REWARD, "sft"):
        if isinstance(chosen := getattr(config, slot).config, OptimizerConfig):
            yield f"{slot}.micro_batch_size", halves(min(chosen.micro_batch_size, chosen.batch_size))
    savings: Callable[[], dict[str, list[Any]]] = getattr(config.model.config, "savings", dict)
    for name, values in savings().items():
        yield f"model.{name}", values


def halves(size: int) -> list[int]:
    """Half of it, a quarter and so on, down to 1."""
    found = []
    while size > 1:
        size //= 2
        found.append(size)
    return found


def changed(config: RunConfig, changes: Sequence[Change]) -> RunConfig:
    for name, value in changes:
        slot, _, key = name.partition(".")
        chosen: Selected = getattr(config, slot)
        replaced = dataclasses.replace(chosen, config=dataclasses.replace(chosen.config, **{key: value}))
        fields: dict[str, Any] = {slot: replaced}
        config = dataclasses.replace(config, **fields)
    return config


def _words(changes: Sequence[Change]) -> str:
    return " and ".join(f"{name}={str(v).lower() if isinstance(v, bool) else v}" for name, v in changes)


def print_table(stages: Sequence[Stage]) -> None:
    """Parts as rows, stages as columns, GiB."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(part.name for stage in stages for part in stage.parts if part.size))
    table = Table("GiB", box=None, pad_edge=False)
    for stage in stages:
        table.add_column(stage.name, justify="right")
    for name in sorted(names, key=lambda name: name == PROCESS):
        sizes = [sum(part.size for part in stage.parts if part.name == name) for stage in stages]
        table.add_row(name, *(f"{size / GIB:.2f}" if size else "" for size in sizes))
    table.add_row("in all", *(f"{stage.total / GIB:.2f}" for stage in stages))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
