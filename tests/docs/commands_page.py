"""Writes docs/reference/commands.md from the commands' own parsers: python tests/docs/commands_page.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "commands.md"

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from alignbench.plugins import Function, Place, registry  # noqa: E402

OURS = "alignbench"
"""The distribution whose commands are listed: others say theirs in their own docs."""
HEAD = """# Commands

`alignbench` and `python -m alignbench` are the same program. Without the name of a command it trains; with one it does something else.
A wrong name or value gives one line that lists the choices. The exit code is 0, 1 for a run that failed, and 2 for a request that cannot be met.
This page is written by `python tests/docs/commands_page.py`.

## `alignbench [overrides]`

One run: the whole pipeline for one algorithm on one model, ending in a table. An override is `key=value`.

| | |
| --- | --- |
| `algo=dpo`, `model=smollm2`, `data=preferences`, `reward=judge`, `annotator=honest`, `eval=quick`, `tracker=tensorboard` | chooses a component: [algorithms](../algorithms/README.md), [models](../models.md), [data](../data.md), [rewards](../rewards.md), [evaluation](../evaluation.md) |
| `algo.kl_coef=0.02`, `reward.loss=plackett_luce`, `model.quantization=nf4` | sets an option of it: [Options](../options.md) |
| `seed=1`, `device=cpu`, `results_dir=DIR`, `cache=false`, `resume=never` | of the run itself |
| `experiment=exact` | several settings at once, from `conf/experiment/` |
| `-m algo=ppo,dpo seed=0,1,2` | a sweep: every combination ([Sweeps](../sweeps.md)) |
| `--config-dir DIR` | further YAML presets |
| `--help`, `--help all`, `algo=dpo --help`, `--help algo.kl_coef` | one screen; every group, choice and default; those of one choice; one option |
| `--version` | the version |
"""


class Found(Exception):
    """The parser that a command was about to use."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@contextmanager
def _stopped() -> Iterator[None]:
    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise Found(self)

    names = ("parse_args", "parse_known_args", "parse_intermixed_args")
    with patch.multiple(argparse.ArgumentParser, **dict.fromkeys(names, stop)):
        yield


def parser_of(function: Function) -> argparse.ArgumentParser:
    main = function.load()
    try:
        with _stopped():
            main([])
    except Found as found:
        return found.parser
    raise AssertionError(f"alignbench {function.name} parses nothing")


def commands() -> dict[str, Function]:
    return {one.name: one for one in registry().functions_of(Place.COMMAND) if one.distribution == OURS}


def subparsers(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """By name, with the line of help that goes with it."""
    found: dict[str, tuple[argparse.ArgumentParser, str]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found |= {name: (below, told.get(name, "")) for name, below in action.choices.items()}
    return found


def _name(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    value = "|".join(map(str, action.choices)) if action.choices else str(value)
    if not action.option_strings:
        return value
    flag = action.option_strings[-1]
    return flag if action.nargs == 0 else f"{flag} {value}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")


def _table(parser: argparse.ArgumentParser) -> str:
    formatter = parser._get_formatter()
    rows = [
        f"| `{_name(action).replace('|', chr(92) + '|')}` | {_cell(formatter._expand_help(action) if action.help else '')} |"
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
    ]
    return "\n".join(["| | |", "| --- | --- |", *rows]) if rows else "No options."


def _examples(parser: argparse.ArgumentParser) -> str:
    """The description's words, and its examples as code."""
    words, code = [], []
    for line in (parser.description or "").splitlines():
        (code if line.startswith("  ") else words).append(line.strip())
    text = " ".join(" ".join(words).split()).replace("<", "\\<")
    return text + ("\n\n" + "\n".join(f"    {line}" for line in code) if code else "")


def written() -> str:
    parts = [HEAD]
    for name, function in commands().items():
        parser = parser_of(function)
        parts += [f"## `alignbench {name}`\n", (_examples(parser) or function.summary) + "\n"]
        actions = subparsers(parser)
        parts += [f"{_table(parser)}\n"] if not actions else []
        for action, (below, told) in actions.items():
            parts += [
                f"### `alignbench {name} {action}`\n",
                *([_cell(told) + "\n"] if told else []),
                f"{_table(below)}\n",
            ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
