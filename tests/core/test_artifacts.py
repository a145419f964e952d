"""Stage artifacts: made once, read as sealed or not at all, whoever else is at work."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import alignbench
from alignbench.commands.cli import run_command
from alignbench.errors import AlignbenchError, UserError
from alignbench.evaluation.suite import Evaluated, Suite
from alignbench.plugins import Kind, registry
from alignbench.store import keys
from alignbench.store.artifacts import MANIFEST, Store, artifacts, fault_of, remove
from tests.core.harness import SMALL, Command, records


def make(text: str = "made", calls: list[str] | None = None) -> Callable[[], Callable[[Path], None]]:
    def work() -> Callable[[Path], None]:
        if calls is not None:
            calls.append(text)

        def write(folder: Path) -> None:
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_text(text)

        return write

    return work


def read(folder: Path, made_by: str) -> tuple[str, str]:
    return (folder / "deep" / "file").read_text(), made_by


def test_made_once_and_read_by_all(tmp_path: Path) -> None:
    calls: list[str] = []
    assert Store(tmp_path, "first").once("sft", "abc", make(calls=calls), read) == ("made", "")
    assert Store(tmp_path, "second").once("sft", "abc", make(calls=calls), read) == ("made", "first")
    assert Store(tmp_path, "third").once("sft", "other", make("x", calls), read) == ("x", "")
    assert calls == ["made", "x"]


def truncate(folder: Path) -> None:
    path = folder / "deep" / "file"
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder: Path) -> None:
    (folder / "deep" / "file").write_text("madf")


def lose(folder: Path) -> None:
    (folder / "deep" / "file").unlink()


def add(folder: Path) -> None:
    (folder / "more").write_text("")


def unseal(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")


def other_version(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": 99}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "deep/file is damaged"),
        (flip, "deep/file is damaged"),
        (lose, "deep/file is missing"),
        (add, "more does not belong to it"),
        (unseal, f"no readable {MANIFEST}"),
        (other_version, "another version of alignbench"),
    ],
)
def test_what_is_damaged_is_set_aside_said_and_made_again(
    damage: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    said: list[str] = []
    store = Store(tmp_path, "run", said.append)
    store.once("sft", "abc", make(), read)
    damage(tmp_path / "sft-abc")
    assert store.once("sft", "abc", make("again"), read) == ("again", "")
    (line,) = said
    assert reason in line and "set aside" in line
    broken, whole = sorted(artifacts(tmp_path), key=lambda a: not a.fault)
    assert (broken.stage, whole.stage, broken.fault, whole.fault) == ("sft", "sft", "set aside", "")
    assert not fault_of(whole.path)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        (folder / "half").write_text("h")
        raise OSError(28, "No space left on device")

    with pytest.raises(AlignbenchError, match=r"the disk is full.*cache_dir="):
        Store(tmp_path).once("sft", "abc", lambda: full, read)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert Store(tmp_path).once("sft", "abc", make(), read) == ("made", "")


def test_leftovers_of_a_killed_process_are_no_artifact(tmp_path: Path) -> None:
    (tmp_path / ".partial-sft-abc").mkdir()
    (tmp_path / ".partial-sft-abc" / "junk").write_text("")
    (left,) = artifacts(tmp_path)
    assert (left.stage, left.fault) == ("sft", "unfinished")
    assert Store(tmp_path).once("sft", "abc", make(), read) == ("made", "")
    assert not fault_of(tmp_path / "sft-abc")
    assert [a.path.name for a in artifacts(tmp_path)] == ["sft-abc"]


def test_what_a_killed_process_left_is_pruned_unless_somebody_is_writing_it(tmp_path: Path) -> None:
    (tmp_path / ".partial-sft-abc").mkdir()
    (left,) = artifacts(tmp_path)
    with FileLock(tmp_path / "sft-abc.lock"):
        assert remove(left) is False
    assert remove(left) is True
    assert artifacts(tmp_path) == []


def _slow(root: str, log: str) -> None:
    def work() -> Callable[[Path], None]:
        with Path(log).open("a") as file:
            file.write("begun\n")
        time.sleep(0.5)
        return make()()

    assert Store(Path(root)).once("sft", "abc", work, read)[0] == "made"


def test_processes_wait_for_the_one_that_makes_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_slow, args=(str(tmp_path / "store"), str(log))) for _ in range(3)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0, 0]
    assert log.read_text() == "begun\n"


def test_the_lock_of_a_dead_process_holds_nobody(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = multiprocessing.get_context("fork").Process(target=_slow, args=(str(tmp_path / "store"), str(log)))
    process.start()
    deadline = time.monotonic() + 30
    while not log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    said: list[str] = []
    assert Store(tmp_path / "store", say=said.append).once("sft", "abc", make(), read) == ("made", "")
    assert said == []


def test_pruning_spares_what_is_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.once("sft", "abc", make(), read)
    (artifact,) = artifacts(tmp_path)

    def while_read(folder: Path, made_by: str) -> bool:
        return remove(artifact)

    assert store.once("sft", "abc", make(), while_read) is False
    assert remove(artifact) is True
    assert artifacts(tmp_path) == []


# In runs


def test_a_second_run_reuses_what_the_first_made_and_gives_the_same(small: Command, tmp_path: Path) -> None:
    first = small("resume=never")
    second = small("resume=never", "algo.kl_coef=0.2")
    third = small("resume=never", "cache=false")
    assert (first.code, second.code, third.code) == (0, 0, 0), third.err
    assert "reused" not in first.err + third.err
    assert second.err.count("reused") == 5
    by_order = sorted((tmp_path / "runs").iterdir())
    runs = [records(path)[0] for path in by_order]
    assert runs[0]["metrics"] == runs[2]["metrics"], "with and without a cache"
    assert records(by_order[0])[1]["metrics"] == records(by_order[1])[1]["metrics"]
    assert runs[1]["reused"] == dict.fromkeys(
        ["sft", "rankings", "reward", "evaluate sft", "frontier"], by_order[0].name
    )
    assert runs[0]["reused"] == runs[2]["reused"] == {}
    for stage in ("pretrain", "sft", "rankings", "reward", "evaluate sft"):
        assert runs[1]["cost"]["seconds"][stage] == runs[0]["cost"]["seconds"][stage], "it costs what it cost"
    shared = [line for line in (by_order[0] / "train.jsonl").read_text().splitlines() if '"ppo"' not in line]
    assert shared == [line for line in (by_order[1] / "train.jsonl").read_text().splitlines() if '"ppo"' not in line]
    for name in ("rankings.jsonl", "sft/generations.jsonl", "sft/examples.parquet", "reward/scalar.safetensors"):
        assert (by_order[0] / name).read_bytes() == (by_order[1] / name).read_bytes()
    assert not list((tmp_path / "runs").rglob("checkpoint"))


def test_an_evaluation_without_any_answer_is_asked_again(
    small: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a judge that was out of reach while the SFT model was measured."""
    metric, evaluate = "helpfulness/accuracy", Suite.evaluate

    def silent(*arguments: Any, **named: Any) -> Evaluated:
        found = evaluate(*arguments, **named)
        scores = [replace(s, value=math.nan) if s.metric == metric else s for s in found.scores]
        return replace(found, scores=tuple(scores), metrics={n: m for n, m in found.metrics.items() if n != metric})

    with monkeypatch.context() as patch:
        patch.setattr(Suite, "evaluate", silent)
        first = small("resume=never")
    second = small("resume=never")
    assert (first.code, second.code) == (0, 0), second.err
    assert f"‡ {metric} of sft: " in first.out and "examples have no answer" in first.out
    assert not re.search(r"^evaluate sft +reused", second.err, re.MULTILINE)
    before, after = (records(path)[1] for path in sorted((tmp_path / "runs").iterdir()))
    assert before["unanswered"] == {metric: after["metrics"][metric]["n"]} and after["unanswered"] == {}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the stages of one small run."""
    folder = tmp_path_factory.mktemp("filled")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run_command([*SMALL, "algo.updates=2", f"results_dir={folder / 'runs'}", f"cache_dir={folder}"]) == 0
    return folder


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ("seed=1", 0),
        ("sft.learning_rate=1e-4", 0),
        ("annotator=honest", 1),
        ("reward.learning_rate=1e-4", 2),
        ("eval.samples=1", 4),
        ("eval.frontier_samples=24", 4),
        ("algo.learning_rate=1e-4", 5),
    ],
)
def test_what_goes_into_a_stage_names_it(change: str, reused: int, small: Command, filled: Path) -> None:
    """The later a stage reads what was changed, the more of the others are reused."""
    done = small(change, f"cache_dir={filled}")
    assert done.code == 0, done.err
    assert done.err.count("reused") == reused


def test_reference_logprobs_are_kept_under_the_tokens(small: Command, tmp_path: Path) -> None:
    for beta in (0.1, 0.2):
        assert small("algo=dpo", f"algo.beta={beta}").code == 0
    stages = [artifact.stage for artifact in artifacts(tmp_path / "cache" / "stages")]
    assert sorted(stages) == ["evaluation", "rankings", "reference", "sft"]


def test_the_cache_is_listed_and_pruned(small: Command, command: Command) -> None:
    assert small().code == 0
    listed = command("cache")
    assert listed.code == 0 and "5 artifacts" in listed.out and "evaluation" in listed.out
    assert command("cache", "prune").code == 2, "it must be told what"
    assert "Deleted 0 of 5" in command("cache", "prune", "--unused", "1h").out
    assert "Deleted 5 of 5" in command("cache", "prune", "--all").out
    assert "0 artifacts" in command("cache").out


# What a stage of the core is named by


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("functional.py", True),
        ("contracts/__init__.py", True),
        ("records/batches.py", True),
        ("pretrained/checkpoint.py", True),
        ("pipeline/data/set_aside.py", True),
        ("pipeline/training.py", True),
        ("evaluation/respond.py", True),
        ("commands/plan.py", False),
        ("optimization/importance.py", True),
        ("results/compared/statistics.py", True),
        ("results/compared/table.py", False),
        ("results/shown/render.py", False),
        ("testing/exact.py", False),
        ("app/sweeps.py", False),
        ("page/server.py", False),
    ],
)
def test_only_what_can_change_a_stage_names_it(tmp_path: Path, changed: str, counts: bool) -> None:
    root = tmp_path / "alignbench"
    shutil.copytree(Path(alignbench.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    before = keys.core_digest(root)
    file = root / changed
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{file.read_text() if file.exists() else ''}\n# changed\n")
    keys.core_digest.cache_clear()  # of a process, whose code stays
    assert (keys.core_digest(root) != before) is counts


def test_a_part_of_the_core_is_named_by_its_own_wing() -> None:
    """Its options name the optimizer of every algorithm: no command or table is part of what decides their numbers."""
    for kind in (Kind.OPTIMIZER, Kind.SCHEDULE):
        assert {c.package for c in registry().of(kind) if c.distribution == "alignbench"} == {"alignbench.optimization"}


# Caches and folders of other kinds


def refused_lock(error: BaseException) -> Callable[..., None]:
    def refuse(self: object, *arguments: object, **options: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_what_is_whole_in_a_cache_that_cannot_be_written_is_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path, "first").once("sft", "abc", make(), read)
    refuse = refused_lock(OSError(number, os.strerror(number)))
    monkeypatch.setattr(FileLock, "acquire", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    assert Store(tmp_path).once("sft", "abc", make("again"), read) == ("made", "first")
    with pytest.raises(UserError, match=r"(read-only|no permission): choose another folder with cache_dir="):
        Store(tmp_path).once("sft", "other", make(), read)
    truncate(tmp_path / "sft-abc")
    with pytest.raises(UserError, match="Cannot write"):
        Store(tmp_path).once("sft", "abc", make("again"), read)


def test_a_file_system_without_locks_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLock, "acquire", refused_lock(NotImplementedError("no flock")))
    with pytest.raises(UserError, match=r"has no locks \(flock\): choose another folder with cache_dir="):
        Store(tmp_path).once("sft", "abc", make(), read)


def test_what_a_killed_run_was_writing_is_removed_by_the_next(tmp_path: Path) -> None:
    for name in ("sft-abc", "reward-def"):
        (tmp_path / f".partial-{name}").mkdir()
    with FileLock(tmp_path / "reward-def.lock"):  # somebody is at work on it
        Store(tmp_path).sweep()
    assert [path.name for path in tmp_path.glob(".partial-*")] == [".partial-reward-def"]


def test_a_clock_that_goes_back_takes_nothing_away(tmp_path: Path) -> None:
    Store(tmp_path, "first").once("sft", "abc", make(), read)
    ahead = time.time() + 10**6
    os.utime(tmp_path / "sft-abc" / MANIFEST, (ahead, ahead))
    assert Store(tmp_path).once("sft", "abc", make("again"), read) == ("made", "first")


def test_what_is_moved_while_it_is_listed_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for key in ("first", "second"):
        store.once("sft", key, make(), read)
    exists = Path.exists

    def moves(path: Path, **options: bool) -> bool:
        if path.name == "sft-first":
            shutil.rmtree(path, ignore_errors=True)
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", moves)
    assert [found.path.name for found in artifacts(tmp_path)] == ["sft-second"]


def test_what_may_not_be_deleted_is_one_line_and_what_is_gone_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).once("sft", "abc", make(), read)
    (found,) = artifacts(tmp_path)

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", read_only)
        with pytest.raises(UserError, match="sft-abc: the file system is read-only"):
            remove(found)
    assert remove(found) and not remove(found)
