"""A run that was stopped goes on, and ends as if it had not been."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from filelock import FileLock

from alignbench import AlignbenchError, DemonstrationBatch, NonFiniteError, RunStarted, RunStep, UserError
from alignbench.app.compose import load_config, typed
from alignbench.app.config import BudgetSettings
from alignbench.app.target import settings_of
from alignbench.commands.cli import run_command
from alignbench.pipeline import changes, experience, lifecycle
from alignbench.pipeline.curves import Curves
from alignbench.pipeline.curves import _NoTracker as curves_tracker
from alignbench.pipeline.display import Display
from alignbench.pipeline.stages import affordable
from alignbench.pipeline.training import train
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.record import Status
from alignbench.store import keys
from alignbench.store.checkpoints import Checkpoints
from tests import tiny
from tests.core.harness import SMALL, Command, Plugin, records
from tests.core.test_training import Moving, good, weights

OPTIONS = ("cache=false", "reward.updates=2")
SHORT = "algo=sft"  # the run with the fewest stages, where no other is looked at
FILES = ("examples.parquet", "generations.jsonl", "train.jsonl", "rankings.jsonl", "sft/generations.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run_command([*SMALL, *OPTIONS, "algo.updates=2", f"results_dir={folder}"]) == 0
    return only(folder)


def only(folder: Path) -> Path:
    (run,) = folder.iterdir()
    return run


def same(one: Path, other: Path) -> bool:
    assert records(one)[0]["metrics"] == records(other)[0]["metrics"]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def stopped(small: Command, plugin: Plugin, stage: str, update: int, error: BaseException, *options: str) -> int:
    """After the hooks were told of that update: a plugin's own error would not stop it."""
    step = Curves.step

    def stop(self: Curves, name: str, number: int, *rest: Any) -> None:
        step(self, name, number, *rest)
        if (name, number) == (stage, update):
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curves, "step", stop)
        return small(*options).code


@pytest.mark.parametrize(
    ("stage", "update", "again"),
    [
        ("pretrain", 2, "command"),
        ("sft", 2, "resume"),
        ("reward", 2, "command"),
        ("ppo", 1, "resume"),
        ("ppo", 2, "command"),
    ],
)
def test_an_interrupted_run_goes_on(
    stage: str, update: int, again: str, whole: Path, small: Command, command: Command, plugin: Plugin, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    options = (f"results_dir={parts}", *OPTIONS)
    assert stopped(small, plugin, stage, update, KeyboardInterrupt(), *options) == 130
    assert records(parts)[0]["status"] == "interrupted"
    steps = len(plugin.heard.steps)
    done = small(*options) if again == "command" else command("resume", str(only(parts)))
    assert done.code == 0, done.err
    assert "going on with" in done.err
    assert same(whole, only(parts))
    assert {p.name for p in only(parts).iterdir()} == {p.name for p in whole.iterdir()}
    assert len(plugin.heard.steps) - steps < 9, "it does not begin again"


def test_a_failed_run_goes_on_only_when_asked(small: Command, plugin: Plugin, command: Command, tmp_path: Path) -> None:
    assert stopped(small, plugin, "sft", 1, AlignbenchError("the disk is full"), SHORT) == 1
    failed = only(tmp_path / "runs")
    assert command("resume", str(failed)).code == 0
    assert records(failed)[0]["status"] == "finished"


def test_the_same_command_starts_anew_after_a_failure_or_where_told(
    small: Command, plugin: Plugin, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="a bug"):
        stopped(small, plugin, "sft", 1, ValueError("a bug"), SHORT)
    stopped(small, plugin, "sft", 1, KeyboardInterrupt(), SHORT)
    assert small(SHORT, "resume=never").code == 0
    statuses = sorted(r["status"] for r in records(tmp_path / "runs") if not r["baseline"])
    assert statuses == ["failed", "finished", "interrupted"]


def test_the_same_command_keeps_what_is_finished(
    small: Command, plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> int:
        return len([r for r in records(tmp_path / "runs") if not r["baseline"]])

    assert small(SHORT).code == 0
    steps = len(plugin.heard.steps)
    again = small(SHORT)
    assert again.code == 0 and "gold_reward" in again.out
    assert "is finished, with these settings and this code; resume=never trains it anew" in again.err
    assert len(plugin.heard.steps) == steps
    assert small(SHORT, "seed=1").code == 0
    assert made() == 2
    assert small(SHORT, "resume=unfinished").code == 0
    assert made() == 3
    monkeypatch.setattr(keys, "of_code", lambda config: "edited")
    edited = small(SHORT)
    assert "is finished, but by other code: it is not taken for this one" in edited.err
    assert made() == 4


@pytest.mark.parametrize(
    ("option", "value", "written"),
    [("annotator.path", "rankings.jsonl", "rankings.jsonl"), ("annotator.path", "folder", "folder/deep/1.jsonl")],
)
def test_a_file_that_the_settings_name_and_that_changed_makes_a_new_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, written: str
) -> None:
    file = tmp_path / written
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    config = load_config(
        [SHORT, f"{option}={tmp_path / value}", "annotator=recorded", f"results_dir={tmp_path / 'runs'}"]
    )
    kind: dict[str, Any] = {"annotator": True, "reward": True}
    with lifecycle.begun(config, say=print, **kind) as begun:
        begun.directory.write_record(dataclasses.replace(begun.record, status=Status.FINISHED))
    run, said = begun.directory.path, list[str]()

    def kept(seconds: float) -> bool:
        """Where the file was written so much later than the run began."""
        monkeypatch.setattr(changes, "_newest", lambda path: changes._begun(begun.directory) + seconds)
        with lifecycle.begun(config, say=said.append, **kind) as again:
            if not again.finished:
                shutil.rmtree(again.directory.path)
            return again.finished

    assert kept(-10)
    assert kept(10)  # the same bytes, copied there once more
    assert not said
    inputs = (run / "inputs.json").rename(tmp_path / "inputs.json")
    assert not kept(10)  # nothing knows the content: a run of before it was written down
    inputs.rename(run / "inputs.json")
    assert kept(10)
    file.write_text("{ }")
    assert not kept(10)
    why = f"{run} is finished, but {option}={tmp_path / value} has changed since: it is not taken for this one"
    assert said == [why, why]


def test_a_file_of_the_settings_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jsonl").write_text("1")
    (folder / "deep" / "b.jsonl").write_text("2")
    digest = changes._content(folder)
    assert digest and digest == changes._content(shutil.copytree(folder, tmp_path / "copy"))  # type: ignore[arg-type]
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_text("1")
    assert changes._content(folder) == digest
    found = {digest}
    for change in (
        lambda: (folder / "a.jsonl").write_text("12"),
        lambda: (folder / "a.jsonl").rename(folder / "c.jsonl"),
        lambda: (folder / "d.jsonl").write_text(""),
        lambda: (folder / "deep" / "b.jsonl").unlink(),
    ):
        change()
        assert changes._content(folder) not in found
        found.add(changes._content(folder))
    assert len(found) == 5
    (folder / "link").symlink_to(tmp_path / "copy")
    assert changes._content(folder) == ""  # its times decide
    (folder / "link").unlink()
    assert changes._content(folder)
    monkeypatch.setattr(changes, "_MOST_BYTES", 1)
    assert changes._content(folder) == ""
    monkeypatch.undo()
    monkeypatch.setattr(changes, "_MOST_FILES", 2)
    assert changes._content(folder) == ""


def test_what_a_run_leaves_that_is_killed_as_it_ends_goes_with_the_next_start(
    small: Command, command: Command, tmp_path: Path
) -> None:
    assert small(SHORT).code == 0
    run = only(tmp_path / "runs")
    names = sorted(run.rglob("*"))
    for again, code in ((lambda: small(SHORT), 0), (lambda: command("resume", str(run)), 2)):
        RunDirectory(run).keep_config("")
        (run / ".lock").touch()
        assert again().code == code
        assert sorted(run.rglob("*")) == names


def begun_in(folder: Path) -> contextlib.AbstractContextManager[lifecycle.Begun]:
    return lifecycle.begun(load_config([SHORT, f"results_dir={folder}"]), annotator=False, reward=False, say=print)


def test_a_run_that_is_killed_before_its_record_leaves_no_second_directory(tmp_path: Path) -> None:
    with begun_in(tmp_path) as begun:
        blank = begun.directory.path
        (blank / "result.json").unlink()
        (blank / ".result.json.7.tmp").touch()
        with begun_in(tmp_path) as beside:
            assert beside.directory.path != blank, "a process is at work there"
        shutil.rmtree(beside.directory.path)
    with begun_in(tmp_path) as again:
        assert again.directory.path == blank == only(tmp_path)
        assert {path.name for path in blank.iterdir()} == {
            "result.json",
            "config.yaml",
            "inputs.json",
            "checkpoint",
            ".lock",
        }
    (blank / "result.json").unlink()
    (blank / "examples.parquet").touch()
    with begun_in(tmp_path) as another:
        assert another.directory.path != blank, "a run that lost its record is nobody's to write over"


def test_two_that_start_at_once_do_not_share_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process finds ours between its making and its lock, and takes it for left behind."""
    create, taken = RunDirectory.create, []

    def found_by_another(*arguments: object, **options: object) -> RunDirectory:
        directory = create(*arguments, **options)  # type: ignore[arg-type]
        if not taken:
            taken.append(directory.lock())
            taken[0].acquire()
        return directory

    monkeypatch.setattr(RunDirectory, "create", found_by_another)
    with begun_in(tmp_path) as begun:
        assert len(list(tmp_path.iterdir())) == 2
        assert begun.directory.path != Path(taken[0].lock_file).parent
    taken[0].release()


def test_a_row_that_was_killed_keeps_its_record_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config([SHORT, f"results_dir={tmp_path}"])
    who = lifecycle.identity(config, config.algo, config.hash, annotator=False, reward=False)

    def row() -> contextlib.AbstractContextManager[tuple[RunDirectory, object]]:
        return lifecycle.new_row(config, "measured", who, config.yaml, reused={}, say=print)

    with row() as (killed, _):
        half = killed.path / ".generations.jsonl.7.tmp"
        half.touch()
        with row():
            assert half.exists(), "a process is at work there"
    with monkeypatch.context() as without_locks:
        without_locks.setattr(FileLock, "acquire", Mock(side_effect=NotImplementedError))
        with row():
            assert half.exists(), "one may be"
    with row() as (again, _):
        assert not half.exists() and again.path != killed.path
    assert records(killed.path)[0]["status"] == "running"


def test_a_folder_of_runs_is_listed_or_gone_on_with(
    small: Command, plugin: Plugin, command: Command, tmp_path: Path
) -> None:
    stopped(small, plugin, "sft", 2, KeyboardInterrupt(), SHORT)
    stopped(small, plugin, "sft", 2, NonFiniteError("the loss is NaN"), SHORT, "seed=1")
    results = tmp_path / "runs"
    interrupted, hopeless = sorted(results.iterdir(), key=lambda path: "s1" in path.name)
    listed = command("resume", str(results)).out.splitlines()
    assert f"{interrupted}  interrupted: interrupted by the user" in listed
    assert any(line.startswith(str(hopeless)) and "It cannot go on: the same numbers" in line for line in listed)
    done = command("resume", str(results), "--all")
    assert done.code == 2 and len(done.errors) == 1 and "the same numbers would end it again" in done.errors[0]
    statuses = {path: records(path)[0]["status"] for path in (interrupted, hopeless)}
    assert statuses == {interrupted: "finished", hopeless: "failed"}


def test_what_was_interrupted_says_how_to_go_on(
    small: Command, plugin: Plugin, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plugin.raise_at = ("sft", 1, KeyboardInterrupt())
    assert f"to go on: alignbench resume {tmp_path / 'runs'}/" in small(SHORT).err


def test_a_finished_run_is_not_resumed(whole: Path, command: Command) -> None:
    done = command("resume", str(whole))
    assert done.code == 2 and "is finished" in done.errors[0]
    assert command("resume", "--results-dir", str(whole.parent)).out.startswith("Every run")


def test_a_changed_config_is_refused_and_the_difference_shown(
    small: Command, plugin: Plugin, command: Command, tmp_path: Path
) -> None:
    stopped(small, plugin, "pretrain", 1, KeyboardInterrupt())
    run = only(tmp_path / "runs")
    assert f"{run}  interrupted" in command("resume", "--results-dir", str(tmp_path / "runs")).out
    refused = command("resume", str(run), "algo.kl_coef=0.5")
    assert refused.code == 2 and "algo.kl_coef=0.5 cannot be changed" in refused.errors[0]
    text = (run / "config.yaml").read_text()
    changed = re.sub(r"kl_coef: \S+", "kl_coef: 0.9", text, count=1)
    assert changed != text
    (run / "config.yaml").write_text(changed)
    refused = command("resume", str(run))
    assert refused.code == 2
    assert "algo.kl_coef: 0.1 -> 0.9" in refused.errors[0]


def test_a_killed_run_is_told_from_one_that_runs(
    small: Command, plugin: Plugin, command: Command, tmp_path: Path
) -> None:
    """Who was killed could not write that down."""
    stopped(small, plugin, "pretrain", 1, KeyboardInterrupt())
    run = only(tmp_path / "runs")
    record = (run / "result.json").read_text()
    assert '"interrupted"' in record
    (run / "result.json").write_text(record.replace('"interrupted"', '"running"'))
    with FileLock(run / ".lock"):
        assert f"{run}  running: interrupted" in command("resume", str(tmp_path / "runs")).out
    (run / ".lock").touch()
    assert f"{run}  killed" in command("resume", str(tmp_path / "runs")).out
    (run / ".lock").unlink(missing_ok=True)  # as some systems do, and copies lack it
    assert f"{run}  running, or killed" in command("resume", str(tmp_path / "runs")).out


def test_a_damaged_record_is_not_called_finished(small: Command, command: Command, tmp_path: Path) -> None:
    assert small().code == 0
    folder = tmp_path / "runs"
    run = only(folder)
    assert f"Every run in {folder} is finished." in command("resume", str(folder)).out
    (run / "result.json").write_text("{broken")
    listed = command("resume", str(folder))
    assert f"{run} cannot be read" in listed.out and "is finished" not in listed.out
    everything = command("resume", str(folder), "--all")
    assert everything.code == 2 and f"{run} cannot be read" in everything.errors[0]


def test_a_folder_that_is_no_run(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = command("resume", str(tmp_path / "empty"))
    assert done.code == 2 and f"No runs in {tmp_path / 'empty'}." in done.errors[0]
    assert command("resume", str(tmp_path / "empty"), "--all").code == 2
    done = command("resume", str(tmp_path / "absent"))
    assert done.code == 2 and "no run's directory" in done.errors[0]


# Checkpoints


def kept(folder: Path, key: str = "key", said: list[str] | None = None) -> Checkpoints:
    return Checkpoints(folder, key, (said if said is not None else []).append)


def test_the_latest_state_is_kept_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    assert kept(folder).restore("ppo") is None
    for update in (1, 2, 10):
        kept(folder).keep("ppo", update, lambda update=update: {"w": torch.full((2,), update), "n": update})  # type: ignore[misc]
    state = kept(folder).restore("ppo")
    assert state is not None and state["n"] == 10 and state["w"].tolist() == [10, 10]
    assert kept(folder).restore("sft") is None
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_set_aside_and_said(damage: str, tmp_path: Path) -> None:
    folder, said = tmp_path / "checkpoint", []
    kept(folder).keep("ppo", 1, lambda: {"n": 1})
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-10] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    assert kept(folder, said=said).restore("ppo") is None
    assert "damaged" in said[0] and "set aside" in said[0]
    assert not list(folder.glob("*.pt"))


def test_a_checkpoint_of_other_code_or_settings_is_not_read(tmp_path: Path) -> None:
    folder, said = tmp_path / "checkpoint", []
    kept(folder).keep("ppo", 1, lambda: {"n": 1})
    assert kept(folder, key="other", said=said).restore("ppo") is None
    assert "other code, versions or settings" in said[0]


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    """States are read with weights_only=True: what a plugin puts there must be tensors and plain values."""
    folder = tmp_path / "checkpoint"
    kept(folder).keep("ppo", 1, lambda: {"bad": Path("x")})
    with pytest.raises(Exception, match="(?i)weights.only|unsupported"):
        kept(folder).restore("ppo")


def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    policy = tiny.scratch()
    batch = DemonstrationBatch(tiny.sequences(policy))

    def go(policy: tiny.HFPolicy, updates: int, checkpoints: Checkpoints):  # type: ignore[no-untyped-def]
        seen: list[int] = []

        def batches(done: int) -> Iterator[DemonstrationBatch]:
            for number in range(done, updates):
                seen.append(number)
                yield batch

        done = train(
            "sft", Moving(policy, good), batches,
            policy=policy, updates=updates, step=lambda *_: None, checkpoints=checkpoints,
        )  # fmt: skip
        return done, seen

    first, _ = go(policy, 3, kept(tmp_path / "c"))
    other = tiny.scratch(seed=5)
    second, seen = go(other, 5, kept(tmp_path / "c"))
    assert seen == [3, 4]
    assert (second.updates, second.optimizer_steps, second.tokens) == (5, 10, first.tokens // 3 * 5)
    assert second.seconds > first.seconds
    for one, two in zip(weights(policy), weights(other), strict=True):
        torch.testing.assert_close(two, one + 2.0)


# Budgets


@pytest.mark.parametrize(
    ("budget", "updates", "stopped_by"),
    [
        (BudgetSettings(), 4, None),
        (BudgetSettings(samples=1), 1, "budget.samples=1"),
        (BudgetSettings(samples=10**9, tokens=1), 1, "budget.tokens=1"),
        (BudgetSettings(seconds=1e-9), 1, "budget.seconds=1e-09"),
    ],
)
def test_a_budget_ends_training_with_the_update_that_reaches_it(
    budget: BudgetSettings, updates: int, stopped_by: str | None
) -> None:
    policy = tiny.scratch()
    batch = DemonstrationBatch(tiny.sequences(policy))
    done = train(
        "stage", Moving(policy, good), lambda done: [batch] * 4,
        policy=policy, updates=4, step=lambda *_: None, budget=budget,
    )  # fmt: skip
    assert (done.updates, done.stopped) == (updates, stopped_by)


@pytest.mark.parametrize(("samples", "updates"), [(0, 9), (16, 1), (17, 2), (10**6, 9)])
def test_the_schedule_of_the_learning_rate_ends_with_the_budget(samples: int, updates: int) -> None:
    assert affordable(9, 16, BudgetSettings(samples=samples)) == updates


def test_what_an_algorithm_has_cost_before_its_first_update_counts() -> None:
    policy = tiny.scratch()
    batch = DemonstrationBatch(tiny.sequences(policy))
    done = train(
        "stage", Moving(policy, good), lambda done: [batch] * 4,
        policy=policy, updates=4, step=lambda *_: None, budget=BudgetSettings(seconds=100.0), before=100.0,
    )  # fmt: skip
    assert done.updates == 1 and done.seconds > 100


def test_the_reference_costs_the_same_whichever_run_made_its_pass(small: Command, tmp_path: Path) -> None:
    """The second run reads it from the first; a slow pass ends both with their first update."""
    slow = "alignbench.pipeline.experience.reference_logprobs"
    with pytest.MonkeyPatch.context() as patch:
        real = experience.reference_logprobs
        patch.setattr(slow, lambda *a: (time.sleep(1.0), real(*a))[1])
        assert small("algo=dpo", "algo.updates=3", "budget.seconds=1.0").code == 0
    assert small("algo=dpo", "algo.updates=3", "budget.seconds=1.0", "resume=never").code == 0
    ended = [(r["ended"], r["reports"]["dpo/updates"]) for r in records(tmp_path / "runs") if not r["baseline"]]
    assert ended == [("budget.seconds=1", 1.0)] * 2


def test_the_record_says_which_bound_ended_the_run(small: Command, tmp_path: Path) -> None:
    """PPO at 16 responses an update, DPO at 16 pairs: equal budgets end at as many responses."""
    assert small("budget.samples=32", "algo.updates=9").code == 0
    assert small("budget.samples=32", "algo.updates=9", "algo=dpo").code == 0
    runs = [r for r in records(tmp_path / "runs") if not r["baseline"]]
    assert {r["ended"] for r in runs} == {"budget.samples=32"}
    assert {r["reports"][f"{r['identity']['algo']}/samples"] for r in runs} == {32.0}
    assert small("budget.samples=-1").code == 2


def test_a_budget_ends_supervised_fine_tuning_where_that_is_the_algorithm(small: Command, tmp_path: Path) -> None:
    """Elsewhere SFT is shared and stands outside of the budget. Its artifact is named by the budget too."""
    assert small("algo=sft", "algo.updates=4", "budget.samples=32").code == 0
    assert small("algo=sft", "algo.updates=4").code == 0
    bounded, free = (r for r in records(tmp_path / "runs") if r["identity"]["algo"] == "sft")
    assert (bounded["ended"], free["ended"]) == ("budget.samples=32", None)
    assert free["reused"] == {}


def test_the_same_settings_from_the_command_line_and_from_config_yaml_share_the_evaluation(tmp_path: Path) -> None:
    """`config.yaml` leaves out the options of evaluations that were not chosen."""
    (tmp_path / "config.yaml").write_text((given := load_config(["eval.families=[optimization]"])).yaml)
    names = {"algo": given.algo.label, "model": given.model.label, "data": given.data.label}
    resumed = typed(settings_of(tmp_path), names)
    assert resumed.hash == given.hash
    one, other = (keys.of_evaluation(c, [], [], [], sft="", reward="", judge="") for c in (given, resumed))
    assert one == other


def test_what_a_kill_left_half_written_is_gone_when_the_run_ends(
    small: Command, plugin: Plugin, tmp_path: Path
) -> None:
    stopped(small, plugin, "sft", 2, KeyboardInterrupt(), SHORT)
    run = only(tmp_path / "runs")
    (run / ".generations.jsonl.4711.tmp").write_text("{")
    assert small(SHORT).code == 0
    assert list(run.rglob(".*")) == []


@pytest.mark.parametrize("how", ["deleted", "moved"])
@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_results_folder_that_vanishes_under_a_run_is_one_line(
    how: str, stage: str, small: Command, plugin: Plugin, tmp_path: Path
) -> None:
    results = tmp_path / "runs"

    def vanish(event: RunStep) -> None:
        if event.stage == stage and results.is_dir():
            if how == "deleted":
                shutil.rmtree(results)
            else:
                results.rename(tmp_path / "elsewhere")

    plugin.on_step = vanish
    done = small()
    assert done.code in (1, 2)
    assert len(done.errors) == 1 and "No such file or directory" in done.errors[0], done.err


def test_a_results_folder_without_locks_says_so(
    small: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FileLock, timeout: float = -1) -> None:
        raise NotImplementedError("no flock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    done = small(SHORT, "cache=false")
    assert "has no locks: let no second process go on with this run" in done.err


def test_a_run_whose_files_have_changed_does_not_go_on(
    small: Command, plugin: Plugin, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(small, plugin, "sft", 2, KeyboardInterrupt(), SHORT)
    run = only(tmp_path / "runs")
    monkeypatch.setattr(changes, "of_files", lambda directory, **_: "data.path=x has changed since")
    refused = command("resume", str(run))
    assert refused.code == 2 and "cannot go on: data.path=x has changed since the run began" in refused.errors[0]
    assert "data.path=x has changed since it began: it is not gone on with" in small(SHORT).err
    assert records(run)[0]["status"] == "interrupted"


def test_a_resumed_run_is_of_the_code_and_versions_that_ended_it(
    small: Command, plugin: Plugin, tmp_path: Path
) -> None:
    stopped(small, plugin, "sft", 2, KeyboardInterrupt(), SHORT)
    run = only(tmp_path / "runs")
    text = (run / "result.json").read_text()
    (run / "result.json").write_text(text.replace('"torch": "', '"torch": "0.'))
    assert small(SHORT).code == 0
    assert records(run)[0]["identity"]["packages"]["torch"] == torch.__version__


def test_a_plugin_that_fails_when_a_run_has_ended_does_not_undo_it(
    small: Command, plugin: Plugin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin.on_end = ValueError("full")
    done = small(SHORT)
    assert done.code == 0
    assert records(only(tmp_path / "runs"))[0]["status"] == "finished"
    assert "failed in its hook run_finished, and the run goes on: ValueError: full" in done.err + caplog.text


def test_a_plugin_that_fails_while_a_run_goes_on_does_not_end_it(
    small: Command, plugin: Plugin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a hook that fails at every update one line tells."""

    def fail(event: RunStep | RunStarted) -> None:
        raise OSError("the chat server is away")

    plugin.on_start = plugin.on_step = fail
    done = small(SHORT)
    assert done.code == 0, done.err
    assert records(only(tmp_path / "runs"))[0]["status"] == "finished"
    assert len(plugin.heard.steps) > 2
    said = done.err + caplog.text
    for hook in ("run_started", "run_step"):
        assert (
            said.count(f"harness failed in its hook {hook}, and the run goes on: OSError: the chat server is away") == 1
        )


def test_a_signal_after_the_record_is_written_does_not_undo_it(small: Command, plugin: Plugin, tmp_path: Path) -> None:
    plugin.on_end = KeyboardInterrupt()
    assert small(SHORT).code == 130
    assert records(only(tmp_path / "runs"))[0]["status"] == "finished"


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"{\n", b"[1]\n", b'{"stage": 1}\n', b"null\n"])
def test_a_damaged_curve_is_one_line(
    damage: bytes, small: Command, plugin: Plugin, command: Command, tmp_path: Path
) -> None:
    stopped(small, plugin, "sft", 2, KeyboardInterrupt(), SHORT)
    run = only(tmp_path / "runs")
    (run / "train.jsonl").write_bytes(damage)
    done = command("resume", str(run))
    assert done.code == 2 and len(done.errors) == 1 and "train.jsonl cannot be read" in done.errors[0]


def test_a_torn_line_is_not_glued_to_the_next(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.append_training("sft", 1, {"loss": 1.0})
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"stage": "sft", "upd')
    curves = Curves(directory, curves_tracker(), Display())
    curves._append("sft", 2, {"loss": 0.5})
    assert [line["update"] for line in directory.training()] == [1, 2]


def test_what_is_inside_a_folder_counts_and_what_was_put_there_with_an_old_date(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    file = folder / "deep" / "weights"
    file.write_text("old")
    os.utime(file, (10**9, 10**9))
    assert changes._newest(folder) == pytest.approx(time.time(), abs=60)


def test_a_function_of_the_user_s_is_a_file_that_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scoring_of_mine.py").write_text("def score(texts): ...")
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert changes._file("target", "scoring_of_mine:score") == tmp_path / "scoring_of_mine.py"
    assert changes._file("target", "package_of_mine.deep:score") == tmp_path / "package_of_mine"
    assert changes._file("target", "absent.module:score") is None
    assert changes._file("label", "world") is None
    assert changes._file("path", "") is None
    assert list(changes._texts({"a": {"b": ["x", {"c": "y"}]}, "d": 1})) == [("a.b", "x"), ("a.b.c", "y")]


def test_other_versions_make_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config([SHORT, f"results_dir={tmp_path}"])
    with lifecycle.begun(config, annotator=True, reward=True, say=print) as begun:
        begun.directory.write_record(dataclasses.replace(begun.record, status=Status.FINISHED))
    assert changes.since(config, begun.directory, begun.record) == ""
    versions = changes.package_versions()
    monkeypatch.setattr(changes, "package_versions", lambda: {**versions, "torch": "99"})
    assert changes.since(config, begun.directory, begun.record) == f"with torch {versions['torch']}, now 99"


@pytest.mark.parametrize("damage", ["cut short", "empty", "gone", "no YAML"])
def test_a_finished_run_whose_config_was_damaged_has_changed(damage: str, tmp_path: Path) -> None:
    config = load_config([SHORT, f"results_dir={tmp_path}"])
    with lifecycle.begun(config, annotator=True, reward=True, say=print) as begun:
        begun.directory.write_record(dataclasses.replace(begun.record, status=Status.FINISHED))
    file = begun.directory.path / "config.yaml"
    text = file.read_text()
    assert changes.since(config, begun.directory, begun.record) == ""
    file.write_text(text.replace("results_dir: ", "results_dir: /elsewhere"))
    assert changes.since(config, begun.directory, begun.record) == "", "where it lies is no matter"
    if damage == "gone":
        file.unlink()
    else:
        whole_lines = text[: text.rindex("\n", 0, len(text) // 2) + 1]
        file.write_text({"cut short": whole_lines, "empty": "", "no YAML": text + "["}[damage])
    assert changes.since(config, begun.directory, begun.record) == "its config.yaml has been damaged since"


def test_the_code_of_the_parts_of_a_mixed_reward_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config([SHORT, "reward=mix", "reward.parts={gold: 1.0, length: -0.2}"])
    before = keys.of_code(config)
    digests = keys.package_digest
    monkeypatch.setattr(keys, "package_digest", lambda name: "edited" if name == "alignbench_world" else digests(name))
    assert keys.of_code(config) != before


def test_the_sft_model_is_of_the_same_code_whichever_algorithm_goes_on_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def codes(*overrides: str) -> list[str]:
        config = load_config([*overrides])
        flags = [{"annotator": True, "reward": False}, {"annotator": True, "reward": True}]
        return [keys.of_code(config), *(keys.of_baseline_code(config, **each) for each in flags)]

    ppo, dpo = codes("algo=ppo"), codes("algo=dpo")
    assert ppo[0] != dpo[0] and ppo[1:] == dpo[1:]
    digests = keys.package_digest
    for package, changed in (("alignbench_dpo", [0]), ("alignbench_rewards", [0, 2]), ("alignbench_sft", [0, 1, 2])):
        monkeypatch.setattr(keys, "package_digest", lambda name, of=package: "edited" if name == of else digests(name))
        assert [i for i, (one, other) in enumerate(zip(dpo, codes("algo=dpo"), strict=True)) if one != other] == changed


def test_a_run_that_somebody_works_on_is_not_begun_again(
    small: Command, plugin: Plugin, command: Command, tmp_path: Path
) -> None:
    stopped(small, plugin, "sft", 2, KeyboardInterrupt(), SHORT)
    run = only(tmp_path / "runs")
    with FileLock(run / ".lock"):
        done = command("resume", str(run))
        assert done.code == 2 and "another process is at work on it" in done.errors[0]
        done = command("resume", str(tmp_path / "runs"), "--all")
        assert done.code == 2 and len(done.errors) == 1
    assert [path for path in (tmp_path / "runs").iterdir() if path.is_dir()] == [run], "no second directory"


def test_without_a_results_folder_there_is_nothing_to_list(command: Command, tmp_path: Path) -> None:
    done = command("resume", "--results-dir", str(tmp_path / "none"))
    assert done.code == 2 and "There is no folder" in done.errors[0]


def test_a_tracker_is_closed_and_watches_only(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails as it is closed fails no run, and one that was opened is closed though there is no model to train."""
    from alignbench_trackers.trackers import NoTracker

    closed = []

    def fails(self: NoTracker) -> None:
        closed.append(self)
        raise OSError("the server has gone")

    monkeypatch.setattr(NoTracker, "finish", fails)
    assert command(*SMALL, "algo.updates=1", "reward.updates=1", "eval.families=[optimization]").code == 0
    assert len(closed) == 1 and records(tmp_path / "runs")[0]["status"] == "finished"

    def no_model(*_: object) -> None:
        raise UserError("no model")

    monkeypatch.setattr("alignbench.pipeline.run.load_model", no_model)
    assert "no model" in command(*SMALL, "seed=1").err and len(closed) == 2
