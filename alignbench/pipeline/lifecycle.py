"""A run's life on disk: its directory, its record and its status, however it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from filelock import Timeout

from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.errors import AlignbenchError, UserError
from alignbench.hookspecs import RunFinished, RunStarted
from alignbench.pipeline import changes
from alignbench.pipeline.display import Display
from alignbench.plugins import registry
from alignbench.records import Metric
from alignbench.results.disk import environment
from alignbench.results.disk.directory import RunDirectory, file_errors
from alignbench.results.disk.record import Cost, Identity, RunRecord, Status
from alignbench.results.disk.runs import read_record
from alignbench.selection import Selected
from alignbench.store import keys
from alignbench.untrusted import redacted


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
        code=keys.of_code(config),
    )


@dataclass(frozen=True)
class _Label:
    """What the name of a directory says, beside the date."""

    algo: str
    model: str
    data: str
    seed: int
    config_hash: str

    def new(self, results_dir: Path) -> RunDirectory:
        return RunDirectory.create(results_dir, **dataclasses.asdict(self))

    def made(self, results_dir: Path) -> list[Path]:
        """The directories of this name, the latest first."""
        name = RunDirectory.name_of(**dataclasses.asdict(self))
        return sorted(results_dir.glob(f"????????-??????-{name}*"), reverse=True) if results_dir.is_dir() else []


@contextlib.contextmanager
def new_row(
    config: RunConfig, name: str, who: Identity, yaml: str, *, reused: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[tuple[RunDirectory, RunRecord]]:
    """The directory of a row that no training belongs to, locked while the context lasts, and its record, which says that it is being
    made. Rows of this name that were killed keep their record, and nothing that they were in the middle of writing."""
    label = _Label(name, who.model, who.data, who.seed, who.config_hash)
    with contextlib.ExitStack() as held:

        def make() -> tuple[RunDirectory, RunRecord]:
            for path in label.made(Path(config.results_dir)):
                _sweep_killed(RunDirectory(path))
            directory = _new_directory(Path(config.results_dir), label, held, say)
            record = RunRecord(run_id=directory.run_id, status=Status.RUNNING, identity=who, reused=dict(reused))
            directory.sweep()
            directory.write_config(yaml)
            directory.write_record(record)
            return directory, record

        yield distributed.asked_once(make)


def _sweep_killed(directory: RunDirectory) -> None:
    with contextlib.ExitStack() as held, contextlib.suppress(UserError):
        if read_record(directory.path).status is not Status.FINISHED and _is_left(directory, held):
            directory.sweep()


def _is_left(directory: RunDirectory, held: contextlib.ExitStack) -> bool:
    """Whether a lock shows that no process is at work there; it goes into `held`. Where locks cannot tell, it may be."""
    lock = directory.lock()
    with contextlib.suppress(OSError, NotImplementedError):  # a Timeout too
        lock.acquire(timeout=0)
        held.callback(lock.release)
    return lock.is_locked


def _new_directory(
    results_dir: Path, label: _Label, held: contextlib.ExitStack, say: Callable[[str], None]
) -> RunDirectory:
    """One that is ours alone: new, or left by a process that was killed before it wrote a record there."""
    for path in label.made(results_dir):
        directory = RunDirectory(path)
        if directory.is_blank() and _is_left(directory, held):
            if directory.is_blank():
                return directory
            held.close()  # whose it is began, and ended, while we looked at it
    while not _locked(directory := label.new(results_dir), held, say):
        pass  # another process took ours for left behind: it has that one
    return directory


@dataclass(frozen=True)
class Begun:
    """A run that may work in its directory. `record` says that it is running; or that it is finished, and left alone."""

    directory: RunDirectory
    record: RunRecord
    resumed: bool = False

    @property
    def finished(self) -> bool:
        return self.record.status is Status.FINISHED


@contextlib.contextmanager
def begun(
    config: RunConfig, *, annotator: bool, reward: bool, say: Callable[[str], None], again: Path | None = None
) -> Iterator[Begun]:
    """The run's directory, locked while the context lasts: `again`, or one of the same settings and seed that is finished, or that a killed
    or interrupted run left unfinished, or a new one. The flags are those of `identity`; `say` is told why a finished one is not kept."""
    with contextlib.ExitStack() as held:
        yield distributed.asked_once(
            lambda: _begin(config, held, annotator=annotator, reward=reward, again=again, say=say)
        )


def _begin(
    config: RunConfig,
    held: contextlib.ExitStack,
    *,
    annotator: bool,
    reward: bool,
    again: Path | None,
    say: Callable[[str], None],
) -> Begun:
    found = _resumable(config, [again] if again else candidates(config), held, explicit=again is not None, say=say)
    if found is None and again:
        raise UserError(
            f"{again} cannot be gone on with: another process is at work on it, or it is of other settings."
        )
    if found is None:
        who = identity(config, config.algo, config.hash, annotator=annotator, reward=reward)
        directory = _new_directory(Path(config.results_dir), _label(config), held, say)
        found = Begun(directory, RunRecord(run_id=directory.run_id, status=Status.RUNNING, identity=who))
        directory.write_config(config.yaml)
        directory.keep_config(config.yaml)
        directory.write_inputs(changes.inputs(config))
    if (
        found.resumed
    ):  # what is left is made by this code, these versions and this machine; stages of others are made again
        who = identity(config, config.algo, config.hash, annotator=annotator, reward=reward)
        found = dataclasses.replace(found, record=dataclasses.replace(found.record, identity=who))
    if not found.finished:
        found.directory.sweep()
        found.directory.write_record(found.record)
    return found


def candidates(config: RunConfig) -> list[Path]:
    """Directories of runs with these settings and this seed, the latest first."""
    return [] if config.resume == "never" else _label(config).made(Path(config.results_dir))


def _label(config: RunConfig) -> _Label:
    return _Label(config.algo.label, config.model.label, config.data.label, config.seed, config.hash)


def _resumable(
    config: RunConfig,
    paths: Sequence[Path],
    held: contextlib.ExitStack,
    *,
    explicit: bool,
    say: Callable[[str], None],
) -> Begun | None:
    """The first of these runs that is finished (and may stay so) or that nobody works on; its lock goes into `held`."""
    for path in paths:
        directory = RunDirectory(path)
        try:
            record = read_record(path)
        except UserError:
            continue
        if record.identity.config_hash != config.hash:
            continue
        if record.status is Status.FINISHED:
            directory.tidy()  # it may have been killed between its record and its end
            if config.resume == "finished" and not explicit:
                if not (changed := changes.since(config, directory, record)):
                    return Begun(directory, record)
                say(f"{path} is finished, but {changed}: it is not taken for this one")
            continue
        if record.status is Status.FAILED and not explicit:
            continue
        if not _locked(directory, held, say):  # it is not killed: it runs
            continue
        if read_record(path).status is Status.FINISHED:  # it ended while we looked at it
            held.close()
            return _resumable(config, [path], held, explicit=explicit, say=say)
        if changed := changes.of_files(directory, unsure=False):
            if explicit:
                raise UserError(f"{path} cannot go on: {changed} the run began. Undo that, or start a new run.")
            say(f"{path} is unfinished, but {changed} it began: it is not gone on with")
            held.close()
            continue
        return Begun(directory, dataclasses.replace(record, status=Status.RUNNING, error=None), resumed=True)
    return None


def _locked(directory: RunDirectory, held: contextlib.ExitStack, say: Callable[[str], None]) -> bool:
    """Whether the run is ours alone, for as long as `held` lasts."""
    lock = directory.lock()
    try:
        with file_errors(directory.path), contextlib.suppress(Timeout):  # an OSError too
            lock.acquire(timeout=0)
        if not lock.is_locked:
            return False
    except NotImplementedError:
        say(f"the file system of {directory.path} has no locks: let no second process go on with this run")
    held.callback(lock.release)
    return True


@contextlib.contextmanager
def ending(directory: RunDirectory, record: RunRecord, display: Display) -> Iterator[None]:
    """Whatever ends the run but success is written down as interrupted or failed, and goes on up."""
    with _termination_as_interrupt():
        try:
            yield
        except KeyboardInterrupt:
            _end(directory, record, display, Status.INTERRUPTED, "interrupted by the user")
            display.say(f"interrupted; to go on: alignbench resume {shlex.quote(str(directory.path))}")
            raise
        except BaseException as error:
            if distributed.peer_was_lost(error):
                _end(directory, record, display, Status.INTERRUPTED, "another process of this run ended")
                raise AlignbenchError(
                    f"another process of this run ended; what there is lies in {directory.path}"
                ) from error
            reason = str(error) if isinstance(error, AlignbenchError) else f"{type(error).__name__}: {error}"
            first, *_ = redacted(reason).splitlines() or ["unknown"]
            _end(directory, record, display, Status.FAILED, first)
            raise


def finish(
    directory: RunDirectory,
    record: RunRecord,
    *,
    metrics: Mapping[str, Metric],
    unanswered: Mapping[str, int],
    reports: Mapping[str, float],
    counts: Mapping[str, int],
    ended: str | None,
    reused: Mapping[str, str],
    cost: Cost,
) -> RunRecord:
    """Writes the record of a run that ended well."""
    done = dataclasses.replace(
        record,
        status=Status.FINISHED,
        metrics=metrics,
        unanswered=dict(unanswered),
        reports=reports,
        counts=counts,
        ended=ended,
        reused=dict(reused),
        cost=cost,
    )
    directory.write_record(done)
    if distributed.is_main():
        directory.tidy()
    announce(directory, done)
    return done


def finish_baseline(
    config: RunConfig,
    directory: RunDirectory,
    *,
    metrics: Mapping[str, Metric],
    unanswered: Mapping[str, int],
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
    who = dataclasses.replace(who, code=keys.of_baseline_code(config, annotator=annotator, reward=reward))
    cost = {stage: seconds[stage] for stage in ("pretrain", "sft", "evaluate sft") if stage in seconds}
    directory.write_config(config.yaml)
    directory.write_record(
        RunRecord(
            run_id=f"{directory.path.parent.name}/{directory.path.name}",
            status=Status.FINISHED,
            identity=who,
            cost=spent(cost),
            metrics=metrics,
            unanswered=dict(unanswered),
            counts=counts,
            baseline=True,
        )
    )


def spent(seconds: Mapping[str, float], tokens_per_second: float | None = None) -> Cost:
    """What this process has taken until now."""
    return Cost(dict(seconds), tokens_per_second, environment.peak_memory_bytes(), environment.peak_gpu_memory_bytes())


def announce(directory: RunDirectory, record: RunRecord) -> None:
    """Tells the plugins how the run ended."""
    if distributed.is_main():
        registry().tell(RunFinished(str(directory.path), record.status.value, record.metrics))


def _end(directory: RunDirectory, record: RunRecord, display: Display, status: Status, reason: str) -> None:
    with contextlib.suppress(UserError):
        if read_record(directory.path).status is Status.FINISHED:  # it was, and something came after: a signal, say
            return
    ended = dataclasses.replace(record, status=status, error=reason, cost=spent(display.seconds))
    # The disk may be what failed; the error that brought us here is the one to report.
    with contextlib.suppress(AlignbenchError):
        directory.write_record(ended)
    announce(directory, ended)


def announce_start(config: RunConfig, directory: RunDirectory) -> None:
    """Tells the plugins that a run begins."""
    if distributed.is_main():
        names = {"algo": config.algo.label, "model": config.model.label, "data": config.data.label}
        registry().tell(RunStarted(str(directory.path), seed=config.seed, **names))


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
