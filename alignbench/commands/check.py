"""`alignbench check`: the conformance kit at the command line. Nothing heavy is imported before there is work to do."""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Sequence

from alignbench.errors import UserError, unknown_name
from alignbench.plugins import Component, Kind, registry, resolve
from alignbench.selection import with_defaults

DESCRIPTION = """Holds components to their contracts. Without a name: lists them.

  alignbench check ppo reward=learned
  alignbench check ppo algo.kl_coef=0.3              with another setting than its default
  alignbench check model=hf model.path=./my-model          a model of yours
  alignbench check data=preferences data.path=x.jsonl      data of yours"""
_SETTING = re.compile(r"(\w+)\.([\w.]+)=")


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where every check of every component holds, else 1."""
    parser = argparse.ArgumentParser(
        "alignbench check", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="ppo, or kind=name where several kinds have the name; or a setting of theirs",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the world that they are checked in (default: 0)")
    chosen = parser.parse_args(arguments)
    if chosen.seed < 0:
        raise UserError(f"--seed {chosen.seed}: a number of 0 or more.")
    if not chosen.names:
        for kind in Kind:
            print(f"{kind.value}: {', '.join(component.name for component in registry().of(kind))}")
        return 0
    settings = [name for name in chosen.names if _SETTING.match(name)]
    components = [_named(name) for name in chosen.names if name not in settings]
    return max(report(component, chosen.seed) for component in _with_settings(components, settings))


def _named(name: str) -> Component:
    left, given, value = name.partition("=")
    if given and left not in (kinds := {kind.value for kind in Kind}):
        hint = f"A setting of a component that is named beside it is written with its kind, as algo.{left}={value}."
        raise UserError(f"{unknown_name('kind of component', left, kinds)} {hint}")
    return resolve(name)


def _with_settings(components: Sequence[Component], settings: Sequence[str]) -> list[Component]:
    """`algo.kl_coef=0.3` is for the algorithms that were named."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        given = OmegaConf.to_container(OmegaConf.from_dotlist(list(settings)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{' '.join(settings)}: {' '.join(str(error).split())}") from error
    assert isinstance(given, dict)
    kinds = {component.kind.value for component in components}
    for kind in map(str, given):
        if kind not in (known := {kind.value for kind in Kind}):
            raise unknown_name("kind of component", kind, known, where=" ".join(settings))
        if kind not in kinds:
            raise UserError(
                f"{kind}.*: no {kind} was named beside it, and a setting is for those that are named. "
                f"Choices: {', '.join(component.name for component in registry().of(Kind(kind)))}."
            )
    return [
        with_defaults(component, given.get(component.kind.value, {}), where=component.kind.value)
        for component in components
    ]


def report(component: Component, seed: int) -> int:
    """Prints one line for each check and a closing count; returns 1 where one failed."""
    from alignbench.testing import Status, check

    name = f"{component.kind.value}={component.name}"
    print(f"{name} ({component.distribution} {component.version}), seed {seed}")
    start = time.perf_counter()
    counts: Counter[Status] = Counter()
    for result in check(component, seed=seed):
        counts[result.status] += 1
        print(f"  {result.line()}", flush=True)
    words = {
        Status.OK: "ok",
        Status.FAILED: "failed",
        Status.NOT_APPLICABLE: "not applicable",
        Status.DECLINED: "declined",
    }
    total = ", ".join(f"{counts[status]} {word}" for status, word in words.items())
    print(f"{name}: {total}, in {time.perf_counter() - start:.1f} s")
    return int(counts[Status.FAILED] > 0)
