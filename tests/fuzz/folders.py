"""Damages a run's folder at random, asks every command for it, and counts what came of it.

    OMP_NUM_THREADS=1 python -m tests.fuzz.folders --count 400

A command may refuse with one line, or work; a traceback is a fault, and so is a refusal of several lines.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml  # type: ignore[import-untyped]
from starlette.testclient import TestClient

from alignbench.commands.cli import run_command
from alignbench.page.explorer.routes import PLOTS
from alignbench.page.server import create_app
from alignbench.page.settings import PageSettings
from tests.core import harness

SETTINGS = (*harness.SMALL, "algo.updates=2", "reward.updates=2", "cache=false", "eval.families=[optimization]")
HOSTILE: Sequence[Any] = (
    None, True, -1, 0, 1e300, float("inf"), 10**400, "", "x", "\x1b[2J", "\ud800", "../../etc", "${oc.env:HOME}", "${x}",
    "???", [], [1, "a"], {}, {"a": {"b": None}}, "9" * 5000,
)  # fmt: skip
TEXTS = (b"", b"\x00" * 50, b"\xff\xfe\x80binary", b"[" * 200_000, b'{"a":' * 100_000, b"{", b"null", b"7", b"!!python/object:os.system x",
         b"&a [*a, *a]", b"a: b: c", b"\tx", b"date: 2026-02-30", b"!!bool maybe", b"schema_version: 5", b'{"schema_version": 5}')  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """One that finished, and one that was interrupted in its algorithm's training."""

    finished: Path
    interrupted: Path


@dataclass(frozen=True)
class Trial:
    """What was done to a folder, by which command it was asked for, and how that ended: an exit code, or a traceback."""

    damage: str
    command: str
    code: int | None
    said: str

    def told(self) -> list[str]:
        """Its lines, but for the second one of compare's refusal: it names the options."""
        return [line for line in self.said.splitlines() if not line.startswith("Name the runs to compare, choose with")]

    @property
    def fault(self) -> bool:
        errors = [line for line in self.said.splitlines() if line.startswith("alignbench: error:")]
        return self.code is None or (self.code != 0 and (len(errors) != 1 or self.told()[-1] not in errors))


def runs(folder: Path) -> Runs:
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], harness.installed() as plugin:
        assert run_command([*SETTINGS, f"results_dir={folder / 'finished'}"]) == 0
        plugin.raise_at = ("ppo", 2, KeyboardInterrupt())
        assert run_command([*SETTINGS, f"results_dir={folder / 'interrupted'}"]) == 130
    (finished,), (interrupted,) = ((folder / name).iterdir() for name in ("finished", "interrupted"))
    return Runs(finished, interrupted)


UNFINISHED = ("resume", "resume --all", "again")
"""What looks at a run that was interrupted; the others look at one that finished, `list` and `compare` at either."""
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "resume": lambda run, out: ["resume", str(run)],
    "resume --all": lambda run, out: ["resume", "--all", str(run.parent)],
    "again": lambda run, out: [*SETTINGS, f"results_dir={run.parent}"],
    "list": lambda run, out: ["resume", str(run.parent)],
    "kept": lambda run, out: [*SETTINGS, f"results_dir={run.parent}"],
    "compare": lambda run, out: ["compare", str(run.parent)],
    "compare csv": lambda run, out: ["compare", str(run.parent), "--format", "csv"],
    "compare markdown": lambda run, out: ["compare", str(run.parent), "--format", "markdown"],
    "compare json": lambda run, out: ["compare", str(run.parent), "--format", "json"],
    "compare latex": lambda run, out: ["compare", str(run.parent), "--format", "latex"],
    "compare html": lambda run, out: ["compare", str(run.parent), "--format", "html", "--output", str(out / "x.html")],
    "evaluate": lambda run, out: ["evaluate", str(run), "eval.families=[optimization]", f"results_dir={out / 'rows'}"],
    "export --merged": lambda run, out: ["export", str(run), "--merged", "--output", str(out / "export")],
    "export --adapter": lambda run, out: ["export", str(run), "--adapter", "--output", str(out / "export")],
    "evaluate-reward": lambda run, out: [
        *("evaluate-reward", f"reward={run}", "--best-of", "2", "--questions", "2", f"results_dir={out / 'rows'}")
    ],
    "rank sample": lambda run, out: [
        *("rank", "sample", "first", "--run", str(run), "--prompts", "2", "--responses", "2", "--projects", str(out))
    ],
    "rank ab": lambda run, out: ["rank", "ab", "first", str(run), str(run / "sft"), "--projects", str(out)],
    "page --export": lambda run, out: ["page", str(run.parent), "--export", str(out / "page.html")],
}
"""Whatever reads a run's folder or a folder of runs: the run, and where to write to. The page's own answers come beside (`EXPLORER`); the
tutorial reads as `again` and `compare` do, and would train."""
EXPLORER = "page"


def trial(made: Runs, rng: random.Random, folder: Path, command: str = "") -> Trial:
    """Works on a copy, below `folder`, which is removed."""
    command = command or rng.choice((*COMMANDS, EXPLORER))
    either = command.startswith(("list", "compare", EXPLORER)) and rng.random() < 0.3
    source = made.interrupted if command in UNFINISHED or either else made.finished
    path = folder / "runs" / source.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, path)
    damage = damaged(path, rng)
    code, said = asked(command, path, folder)
    return Trial(damage, command, code, said)


def asked(command: str, run: Path, out: Path) -> tuple[int | None, str]:
    """How a command ended, and what it said of it."""
    err = io.StringIO()
    # A pool of a size that takes a moment; and no cache of the user's
    small = mock.patch.multiple("alignbench.page.simulator.pool", QUESTIONS=1, SAMPLES=4)
    own = mock.patch.dict(os.environ, ALIGNBENCH_CACHE=str(out / "cache"))
    with small, own, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            if command == EXPLORER:
                return _explored(run.parent), err.getvalue()
            code = run_command(COMMANDS[command](run, out))
        except BaseException:
            return None, traceback.format_exc()
    return code, err.getvalue()


def _explored(results: Path) -> int:
    """Every answer of the page about a folder of runs; 2 where one is refused, and that in one line."""
    with mock.patch.multiple("alignbench.page.explorer.library", CHECKED_EVERY=0.0, QUICK=60.0):
        site = TestClient(create_app(PageSettings(results)), base_url="http://127.0.0.1:8400")
        name = next(iter(p.name for p in results.iterdir()))
        answers = [
            site.get(f"/results/{what}", params=given)
            for what, given in (
                ("state", {}), ("table", {}), ("differences", {}), ("runs", {}), ("training", {"run": name}), ("settings", {"run": name}),
                ("responses", {"run": [name, f"{name}/sft"]}), *(("plot", {"plot": plot}) for plot in PLOTS),
            )
        ]  # fmt: skip
    refused = [answer.text for answer in answers if answer.status_code == 400]
    if odd := [answer for answer in answers if answer.status_code not in (200, 400)]:
        raise AssertionError(f"{odd[0].url}: {odd[0].status_code}: {odd[0].text}")
    if refused:
        print(f"alignbench: error: {refused[0]}", file=sys.stderr)
    return 2 if refused else 0


def damaged(path: Path, rng: random.Random) -> str:
    """Damages one file, or two; says how."""
    done = []
    for _ in range(1 if rng.random() < 0.8 else 2):
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != ".lock")
        often = [p for p in files if p.name in ("result.json", "config.yaml")]
        file = rng.choice(often if rng.random() < 0.5 and often else files)
        how = rng.choice(DAMAGES)
        how(file, rng)
        done.append(f"{how.__name__} {file.relative_to(path)}")
    return ", ".join(done)


def flipped(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes() or b"x")
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    file.write_bytes(content)


def cut(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content) + 1)])


def replaced(file: Path, rng: random.Random) -> None:
    file.write_bytes(rng.choice(TEXTS))


def gone(file: Path, rng: random.Random) -> None:
    file.unlink()


def a_folder(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def a_dangling_link(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def with_another_value(file: Path, rng: random.Random) -> None:
    """One value, somewhere inside, is another one; or gone."""
    read: Callable[[str], Any] = json.loads if file.suffix == ".json" else yaml.safe_load
    if file.suffix not in (".json", ".yaml"):
        return flipped(file, rng)
    try:
        content = read(file.read_text())
    except Exception:
        return flipped(file, rng)
    node = content
    while isinstance(node, dict | list) and node:
        key = rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
            if rng.random() < 0.2:
                del node[key]
            else:
                node[key] = rng.choice(HOSTILE)
            break
        node = node[key]
    if file.suffix == ".json":
        file.write_text(json.dumps(content))
    else:
        file.write_text(yaml.safe_dump(content, allow_unicode=False))
    return None


DAMAGES = (flipped, cut, replaced, gone, a_folder, a_dangling_link, with_another_value, with_another_value)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="append", choices=[*COMMANDS, EXPLORER], help="only this one; repeat it")
    options = parser.parse_args(arguments)
    chosen = options.command or [*COMMANDS, EXPLORER]
    counts: dict[str, Counter[str]] = {command: Counter() for command in chosen}
    with tempfile.TemporaryDirectory() as folder:
        made = runs(Path(folder))
        for number in range(options.count):
            found = trial(
                made, random.Random(f"{options.seed} {number}"), Path(folder) / "trial", chosen[number % len(chosen)]
            )
            counts[found.command]["faults" if found.fault else "worked" if found.code == 0 else "refused"] += 1
            if found.fault:
                print(f"{number}: {found.command} after {found.damage}:\n{found.said}", flush=True)
    for command, one in counts.items():
        print(f"{command}: {one['refused']} refused in one line, {one['worked']} worked, {one['faults']} faults")
    every = sum(counts.values(), Counter())
    print(
        f"{options.count} damaged folders: {every['refused']} refused in one line, {every['worked']} worked; {every['faults']} faults"
    )
    return int(every["faults"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
