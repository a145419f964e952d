"""Hostile model folders, as `model=hf` and as `reward=hf`: one line each and soon, or a model. `python -m tests.hf.test_hostile` counts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_rewards.classifier import HFReward
from alignbench_rewards.config import HFConfig
from transformers import LlamaForSequenceClassification

from alignbench import Seeds, UserError
from tests import tiny
from tests.fuzz.count import told
from tests.hf.hostile import all_of_them

SECONDS = 10  # of CPU; of waiting, six times as long: other processes may be busy
ROLES = ("model", "reward")
MEMORY = 2**31


def read(role: str, folder: Path) -> None:
    if role == "model":
        config = PretrainedConfig(
            path=str(folder), max_prompt_tokens=8, max_response_tokens=6, lora_rank=4, dtype="float32"
        )
        build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0)).prompt_tokens(tiny.PROMPTS[0])
    else:
        policy = tiny.scratch()
        reward = HFReward(HFConfig(model=str(folder), label=0), policy=policy, data=None, seeds=Seeds(0))  # type: ignore[arg-type]
        reward._encoded(tiny.PROMPTS[0], "a")


def whole(folder: Path, role: str) -> Path:
    model = tiny.base_model()
    if role == "reward":
        model.config.num_labels = 1
        model = LlamaForSequenceClassification(model.config)
    model.save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    if role == "reward":
        (folder / "generation_config.json").write_text("{}")
    return folder


def outcome(role: str, folder: Path) -> tuple[str, str]:
    """What came of reading it, in a process of its own: `refused`, `loaded` or `fault`, and what was said."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        os.write(there, json.dumps(_tried(role, folder)).encode())
        os._exit(0)
    os.close(there)
    found = b""
    while select.select([here], [], [], 6 * SECONDS)[0] and (part := os.read(here, 2**16)):
        found += part
    os.close(here)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if not found:
        return "fault", f"no answer in {SECONDS} s"
    how, said = json.loads(found)
    return how, said


def _tried(role: str, folder: Path) -> tuple[str, str]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS, resource.RLIM_INFINITY))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            read(role, folder)
    except UserError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used.ru_maxrss
        line = str(error)
        plain = not told(error) and line.isprintable() and len(line) < 2000 and grown < MEMORY // 1024
        return ("refused" if plain else "fault"), line
    except BaseException:
        return "fault", traceback.format_exc(limit=-4)
    finally:
        if (folder / "it_ran").exists():
            os._exit(1)
    return "loaded", printed.getvalue()


@pytest.mark.parametrize("role", ROLES)
def test_hostile_folders_as_a_model_and_as_a_reward(role: str, tmp_path: Path) -> None:
    """At least 40 are refused in one line, none by a traceback or a name of a Python class, none hangs, and no code of theirs runs."""
    found = every(role, tmp_path)
    assert not (faults := {name: said for name, (how, said) in found.items() if how == "fault"}), faults
    assert sum(how == "refused" for how, _ in found.values()) >= 40


def every(role: str, room: Path, chosen: Callable[[str], bool] = lambda name: True) -> dict[str, tuple[str, str]]:
    intact = whole(room / "whole", role)
    assert outcome(role, intact)[0] == "loaded", outcome(role, intact)
    found = {}
    for number, (name, do) in enumerate(all_of_them()):
        if chosen(name):
            folder = shutil.copytree(intact, room / f"{role}{number}")
            do(folder)
            found[name] = outcome(role, folder)
            shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> int:
    bad = 0
    for role in ROLES:
        with tempfile.TemporaryDirectory() as room:
            found = every(role, Path(room), lambda name: all(part in name for part in sys.argv[1:]))
        for name, (how, said) in found.items():
            if how == "fault" or sys.argv[1:]:
                print(f"{role}: {name}: {how}: {said}")
        counts = Counter(how for how, _ in found.values())
        bad += counts["fault"]
        loaded = ", ".join(name for name, (how, _) in found.items() if how == "loaded")
        print(
            f"{role}=hf: {len(found)} folders, {counts['refused']} refused in one line, {counts['fault']} faults; loaded: {loaded}"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
