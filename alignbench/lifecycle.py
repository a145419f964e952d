"""A run's life on disk: its directory, its record and its status, however it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from alignbench.config import RunConfig, Selected
from alignbench.contracts import Tracker
from alignbench.errors import AlignbenchError
from alignbench.plugins import registry
from alignbench.progress import Display
from alignbench.records import Metric, RunFinished, RunStarted, RunStep
from alignbench.results import environment
from alignbench.results.directory import RunDirectory
from alignbench.results.record import Cost, Identity, RunRecord, Status
from alignbench.training import Step


def identity(config: RunConfig, algo: Selected, config_hash: str, *, annotator: bool, reward: bool) -> Identity:
    """Who a row is; `annotator` and `reward` tell whether the row depends on them."""
    return Identity(
        algo=algo.component.name,
        plugin=algo.component.distribution,
        plugin_version=algo.component.version,
        model=config.model.label,
        data=config.data.label,
        annotator=config.annotator.label if annotator else None,
        reward=config.reward.label if reward else None,
        seed=config.seed,
        config_hash=config_hash,
        git_commit=environment.git_commit(),
        packages=environment.package_versions(),
        hardware=environment.hardware(),
    )


def start(config: RunConfig, *, annotator: bool, reward: bool) -> tuple[RunDirectory, RunRecord]:
    """Creates the run's directory, with a record that says it is running; the flags are those of `identity`."""
    directory = RunDirectory.create(
        Path(config.results_dir),
        algo=config.algo.label,
        model=config.model.label,
        data=config.data.label,
        seed=config.seed,
        config_hash=config.hash,
    )
    who = identity(config, config.algo, config.hash, annotator=annotator, reward=reward)
    record = RunRecord(run_id=directory.run_id, status=Status.RUNNING, identity=who)
    directory.write_config(config.yaml)
    directory.write_record(record)
    return directory, record


@contextlib.contextmanager
def ending(directory: RunDirectory, record: RunRecord, display: Display) -> Iterator[None]:
    """Whatever ends the run but success is written down as interrupted or failed, and goes on up."""
    with _termination_as_interrupt():
        try:
            yield
        except KeyboardInterrupt:
            _end(directory, record, display, Status.INTERRUPTED, "interrupted by the user")
            display.say(f"interrupted; what there is lies in {directory.path}")
            raise
        except BaseException as error:
            reason = str(error) if isinstance(error, AlignbenchError) else f"{type(error).__name__}: {error}"
            _end(directory, record, display, Status.FAILED, reason.splitlines()[0] if reason else "unknown")
            raise


def finish(
    directory: RunDirectory,
    record: RunRecord,
    *,
    metrics: Mapping[str, Metric],
    reports: Mapping[str, float],
    counts: Mapping[str, int],
    cost: Cost,
) -> RunRecord:
    """Writes the record of a run that ended well."""
    done = dataclasses.replace(
        record, status=Status.FINISHED, metrics=metrics, reports=reports, counts=counts, cost=cost
    )
    directory.write_record(done)
    announce(directory, done)
    return done


def finish_baseline(
    config: RunConfig,
    directory: RunDirectory,
    *,
    metrics: Mapping[str, Metric],
    counts: Mapping[str, int],
    seconds: Mapping[str, float],
    annotator: bool,
    reward: bool,
) -> None:
    """Writes the SFT model's own row, in its folder inside the run; the flags are those of `identity`."""
    measured = {"sft": config.sft_hash}
    measured |= {"annotator": config.annotator_hash} if annotator else {}
    measured |= {"reward": config.reward_hash} if reward else {}
    who = identity(config, config.sft, environment.config_hash(measured), annotator=annotator, reward=reward)
    cost = {stage: seconds[stage] for stage in ("pretrain", "sft", "evaluate sft") if stage in seconds}
    directory.write_config(config.yaml)
    directory.write_record(
        RunRecord(
            run_id=f"{directory.path.parent.name}/{directory.path.name}",
            status=Status.FINISHED,
            identity=who,
            cost=Cost(cost, None, environment.peak_memory_bytes()),
            metrics=metrics,
            counts=counts,
            baseline=True,
        )
    )


def announce(directory: RunDirectory, record: RunRecord) -> None:
    """Tells the plugins how the run ended."""
    event = RunFinished(str(directory.path), record.status.value, record.metrics)
    registry().manager.hook.run_finished(event=event)


def _end(directory: RunDirectory, record: RunRecord, display: Display, status: Status, reason: str) -> None:
    cost = Cost(dict(display.seconds), None, environment.peak_memory_bytes())
    ended = dataclasses.replace(record, status=status, error=reason, cost=cost)
    # The disk may be what failed; the error that brought us here is the one to report.
    with contextlib.suppress(AlignbenchError):
        directory.write_record(ended)
    announce(directory, ended)


def steps(directory: RunDirectory, tracker: Tracker, display: Display) -> Step:
    """What follows every update: a line in train.jsonl, the tracker, the hooks, the bar."""
    total = 0

    def step(stage: str, update: int, updates: int, metrics: Mapping[str, float]) -> None:
        nonlocal total
        total += 1
        directory.append_training(stage, update, metrics)
        tracker.log({f"{stage}/{name}": value for name, value in metrics.items()}, total)
        registry().manager.hook.run_step(event=RunStep(str(directory.path), stage, update, metrics))
        display.step(update, updates, metrics)

    return step


def announce_start(config: RunConfig, directory: RunDirectory) -> None:
    """Tells the plugins that a run begins."""
    names = {"algo": config.algo.label, "model": config.model.label, "data": config.data.label}
    registry().manager.hook.run_started(event=RunStarted(str(directory.path), seed=config.seed, **names))


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """A scheduler's SIGTERM ends a run as Ctrl-C does. Signals belong to the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
