"""`alignbench resume`: goes on with a run that was killed, interrupted or failed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from alignbench.errors import UserError
from alignbench.results.disk.directory import CHECKPOINTS, CONFIG, RESULT
from alignbench.results.disk.record import RunRecord, Status
from alignbench.results.disk.runs import DEFAULT_RESULTS, find_runs, locate, read_settings
from alignbench.untrusted import plain


def main(argv: Sequence[str]) -> int:
    """Resumes each run in turn, or lists what could be; returns the exit code."""
    options = _parser().parse_args(argv)
    if overrides := [name for name in options.runs if "=" in name]:
        raise UserError(
            f"A run goes on with the settings that it began with: {overrides[0]} cannot be changed. Start a new run instead."
        )
    if not options.runs:
        _list(options.results_dir)
        return 0
    for name in options.runs:
        _resume(locate(name, options.results_dir))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench resume",
        description="Go on with runs that were killed, interrupted or failed, from their last update; the\n"
        "result is that of a run that was never stopped. Without RUN: list them. The command\n"
        "that started a run does the same, where the run did not fail.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a run's directory, or its name in the results folder")
    parser.add_argument("--results-dir", type=Path, default=DEFAULT_RESULTS, metavar="DIR", help="default: %(default)s")
    return parser


def _list(results_dir: Path) -> None:
    found, _ = find_runs([results_dir])
    unfinished = [run for run in found if run.record.status is not Status.FINISHED]
    for run in unfinished:
        reason = f": {run.record.error}" if run.record.error else ""
        print(plain(f"{run.path}  {run.record.status.value}{reason}"))
    if not unfinished:
        print(f"Every run in {results_dir} is finished.")


def _resume(path: Path) -> None:
    if not (path / RESULT).is_file():
        raise UserError(
            f"{path} is no run's directory: it has no {RESULT}. See `alignbench resume` for what can be resumed."
        )
    record = RunRecord.from_json((path / RESULT).read_text(encoding="utf-8"))
    if record.status is Status.FINISHED:
        raise UserError(f"{path} is finished: there is nothing to go on with.")
    _require_same_config(path)

    from omegaconf import DictConfig, OmegaConf

    from alignbench.app.compose import register_configs, typed

    register_configs()
    settings = OmegaConf.load(path / CONFIG)
    assert isinstance(settings, DictConfig)
    who = record.identity
    names = {"algo": who.algo_label or who.algo, "model": who.model, "data": who.data}
    names |= {kind: name for kind, name in (("annotator", who.annotator), ("reward", who.reward)) if name}
    config = typed(settings, names)
    if config.hash != who.config_hash:
        raise UserError(
            f"{path} began under other settings, or other defaults, than {CONFIG} gives now "
            f"({who.config_hash}, now {config.hash}): start a new run."
        )

    from alignbench.pipeline.run import run

    if not run(config, again=path).samefile(path):
        raise UserError(f"{path} is being worked on by another process.")


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
