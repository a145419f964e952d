"""Damages a run's folder at random, asks every command for it, and counts what came of it.

    OMP_NUM_THREADS=1 python -m tests.fuzz.folders --count 400

A command may refuse with one line, or work; a traceback is a fault, and so is a refusal of several lines.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
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

import yaml  # type: ignore[import-untyped]

from alignbench.commands.cli import run_command
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

    @property
    def fault(self) -> bool:
        errors = [line for line in self.said.splitlines() if line.startswith("alignbench: error:")]
        return self.code is None or (self.code != 0 and (len(errors) != 1 or self.said.splitlines()[-1] not in errors))


def runs(folder: Path) -> Runs:
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], harness.installed() as plugin:
        assert run_command([*SETTINGS, f"results_dir={folder / 'finished'}"]) == 0
        plugin.raise_at = ("ppo", 2, KeyboardInterrupt())
        assert run_command([*SETTINGS, f"results_dir={folder / 'interrupted'}"]) == 130
    (finished,), (interrupted,) = ((folder / name).iterdir() for name in ("finished", "interrupted"))
    return Runs(finished, interrupted)


def trial(made: Runs, rng: random.Random, folder: Path) -> Trial:
    """Works on a copy, below `folder`, which is removed."""
    command = rng.choice(("resume", "again", "evaluate", "export", "compare"))
    source = made.interrupted if command in ("resume", "again") else made.finished
    path = folder / "runs" / source.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, path)
    damage = damaged(path, rng)
    arguments = {
        "resume": ["resume", str(path)],
        "again": [*SETTINGS, f"results_dir={path.parent}"],
        "evaluate": ["evaluate", str(path), "eval.families=[optimization]", f"results_dir={folder / 'rows'}"],
        "export": ["export", str(path), "--adapter" if rng.random() < 0.2 else "--merged", "--output", str(folder / "export")],
        "compare": ["compare", str(path.parent)],
    }[command]  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run_command(arguments)
        except BaseException:
            return Trial(damage, command, None, traceback.format_exc())
    return Trial(damage, command, code, err.getvalue())


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
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        made = runs(Path(folder))
        for number in range(options.count):
            found = trial(made, random.Random(f"{options.seed} {number}"), Path(folder) / "trial")
            counts["faults" if found.fault else "worked" if found.code == 0 else "refused"] += 1
            if found.fault:
                print(f"{number}: {found.command} after {found.damage}:\n{found.said}", flush=True)
    print(f"{options.count} damaged folders: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}; "
          f"{counts['faults']} faults")  # fmt: skip
    return int(counts["faults"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
