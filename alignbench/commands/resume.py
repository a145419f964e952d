"""`alignbench resume`: goes on with a run that was killed, interrupted or failed."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from alignbench.errors import AlignbenchError, UserError
from alignbench.paths import given_path, is_setting
from alignbench.results.disk.directory import CHECKPOINTS, CONFIG, LAST_GOOD, LOCK, RESULT, RunDirectory
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import (
    DEFAULT_RESULTS,
    BrokenRun,
    StoredRun,
    find_runs,
    is_run,
    locate,
    no_runs,
    read_record,
    read_settings,
)
from alignbench.untrusted import plain, told


def main(argv: Sequence[str]) -> int:
    """Resumes each run in turn, or lists what could be; returns the exit code."""
    options = _parser().parse_args(argv)
    if overrides := [name for name in options.runs if is_setting(name)]:
        raise UserError(
            f"A run goes on with the settings that it began with: {overrides[0]} cannot be changed. Start a new run instead."
        )
    if not options.runs and not options.results_dir.is_dir():
        raise UserError(
            f"There is no folder {options.results_dir}: nothing was run here. Give a run or a folder of runs."
        )
    code = 0
    for path in [locate(name, options.results_dir) for name in options.runs] or [options.results_dir]:
        if is_run(path) or not path.is_dir():
            _resume(path)
        elif options.all:
            unfinished, broken = _unfinished(path)
            for run in broken:
                print(told(f"alignbench: error: {_unreadable(run)}"), file=sys.stderr)
            code = max([code, 2 * bool(broken), *(_try(run) for run in unfinished)])
        else:
            _list(path)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench resume",
        description="Go on with runs that were killed, interrupted or failed, from their last update; the\n"
        "result is that of a run that was never stopped. A folder of runs: list them, or go on\n"
        "with --all of them. The command that started a run does the same, where the run did\n"
        "not fail.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="a run's directory, its name in the results folder, or a folder"
    )
    parser.add_argument("--all", action="store_true", help="go on with every run of a folder that can")
    parser.add_argument(
        "--results-dir", type=given_path, default=DEFAULT_RESULTS, metavar="DIR", help="default: %(default)s"
    )
    return parser


def _try(run: StoredRun) -> int:
    """Goes on with one of many: what stops it is said, and the others go on."""
    try:
        if hopeless := _hopeless(run):
            raise UserError(f"{run.path} cannot go on: {hopeless}.")
        _resume(run.path)
    except AlignbenchError as error:
        print(told(f"alignbench: error: {error}"), file=sys.stderr)
        return error.exit_code
    except Exception:
        print(told(traceback.format_exc()), end="", file=sys.stderr)
        return 1
    return 0


def _list(results_dir: Path) -> None:
    unfinished, broken = _unfinished(results_dir)
    for run in unfinished:
        reason = f": {run.record.error}" if run.record.error else ""
        never = f" It cannot go on: {hopeless}." if (hopeless := _hopeless(run)) else ""
        print(plain(f"{run.path}  {_state(run)}{reason}{never}"))
    for damaged in broken:
        print(plain(_unreadable(damaged)))
    if not unfinished and not broken:
        print(f"Every run in {results_dir} is finished.")


def _state(run: StoredRun) -> str:
    """A run that was killed could not say so: its record goes on calling it running, and nobody holds its lock. Without a lock nobody
    knows: some systems remove it, and copies of a run lack it."""
    if run.record.status is not Status.RUNNING:
        return str(run.record.status.value)
    if not (run.path / LOCK).is_file():
        return "running, or killed"
    lock = RunDirectory(run.path).lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "running"
    except (OSError, NotImplementedError):
        return "running, or killed"
    lock.release()
    return "killed"


def _unreadable(run: BrokenRun) -> str:
    return f"{run.path} cannot be read: {run.reason}"


def _unfinished(results_dir: Path) -> tuple[list[StoredRun], list[BrokenRun]]:
    """And those that cannot be read. Raises UserError for a folder without a run: that all of them are finished would mislead."""
    found, broken = find_runs([results_dir])
    if not found and not broken:
        raise no_runs([results_dir])
    return [run for run in found if run.record.status is not Status.FINISHED and not run.record.baseline], broken


def _hopeless(run: StoredRun) -> str:
    """Why this run would not get further, whatever is repaired outside of it."""
    if not (run.path / CHECKPOINTS / CONFIG).is_file():
        return "it kept no checkpoint; start it again with its own command"
    if run.record.status is Status.FAILED and (run.path / LAST_GOOD).is_dir():
        return "the same numbers would end it again; change its settings and start a new one"
    return ""


def _resume(path: Path) -> None:
    if not (path / RESULT).is_file():
        raise UserError(
            f"{path} is no run's directory: it has no {RESULT}. See `alignbench resume` for what can be resumed."
        )
    record = read_record(path)
    if record.status is Status.FINISHED:
        RunDirectory(path).tidy()  # it may have been killed between its record and its end
        raise UserError(f"{path} is finished: there is nothing to go on with.")
    _require_same_config(path)

    from alignbench.app.compose import register_configs, typed
    from alignbench.app.target import labels, settings_of

    register_configs()
    who = record.identity
    config = typed(settings_of(path), labels(who))
    if config.hash != who.config_hash:
        raise UserError(
            f"{path} began under other settings, or other defaults, than {CONFIG} gives now "
            f"({who.config_hash}, now {config.hash}): start a new run."
        )

    from alignbench.pipeline.run import run

    run(config, again=path)


def _require_same_config(path: Path) -> None:
    """Refuses a config.yaml that is not the one that the run began with, showing what differs."""
    kept = path / CHECKPOINTS / CONFIG
    if not kept.is_file():
        raise UserError(f"{path} has no checkpoint folder: it cannot go on. Start it again with its own command.")
    before, now = read_settings(kept), read_settings(path / CONFIG)
    changed = [
        f"{key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, "absent") != now.get(key, "absent")
    ]
    if changed:
        raise UserError(
            f"{path / CONFIG} was changed after the run began ({'; '.join(changed)}): undo that, or start a new run."
        )
