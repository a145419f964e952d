"""`alignbench export`: a finished run's model as a folder that other programs load."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from alignbench.app.config import RunConfig
from alignbench.errors import AlignbenchError, UserError
from alignbench.paths import given_path, user_path
from alignbench.records import Exported, Split
from alignbench.results.disk.directory import BASELINE, CONFIG, RESULT, file_errors
from alignbench.results.disk.runs import DEFAULT_RESULTS, locate, read_config
from alignbench.selection import digest
from alignbench.store.artifacts import cache_root

DEFAULT_EXPORTS = Path("results/exports")
COMPARED_PROMPTS = 4
CARD = "README.md"
MEASURED_ELSEWHERE = ("results_dir", "cache", "cache_dir", "device", "resume")
"""Settings that change no result."""


def main(argv: Sequence[str]) -> int:
    """Writes one export, checked by loading it; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.merged == options.adapter:
        raise UserError("Say what to write: --merged (one ordinary model) or --adapter (the adapter alone).")
    path = locate(options.run, options.results_dir)
    if not (path / RESULT).is_file():
        raise UserError(f"{path} is no run's directory: it has no {RESULT}.")
    of_baseline = path.name == BASELINE and (path.parent / RESULT).is_file()
    run = path.parent if of_baseline else path

    from alignbench.app.target import of_run

    config = of_run(run, []).config
    kind = "merged" if options.merged else "adapter"
    name = "-".join([run.resolve().name, *([BASELINE] if of_baseline else []), kind])
    target = user_path(options.output or DEFAULT_EXPORTS / name, "--output")
    with file_errors(target, "choose another folder with --output"):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise UserError(
                f"{target} exists already: nothing is written over it. Choose another folder with --output."
            )
    exported = _export(config, path, target, merged=options.merged)
    print(
        f"{target}: loaded again, the log-probabilities of {exported.tokens} tokens differ from the policy's own by "
        f"{exported.mean:.2g} on average and {exported.largest:.2g} at most."
    )
    for note in exported.notes:
        print(note)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench export",
        description="Write the model of a finished run as a folder that transformers, peft and vLLM load, and check\n"
        "it by loading it.\n\n"
        "  alignbench export RUN --merged                        one ordinary model\n"
        "  alignbench export RUN --adapter --output my-adapter   the adapter alone, which names its base\n"
        "  alignbench export RUN/sft --merged                    the SFT model that the run started from",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory, or its name in the results folder")
    parser.add_argument("--merged", action="store_true", help="full weights, the adapter merged into the base")
    parser.add_argument("--adapter", action="store_true", help="the adapter alone")
    parser.add_argument("--output", type=given_path, metavar="DIR", help=f"default: {DEFAULT_EXPORTS}/<run>-<what>")
    parser.add_argument(
        "--results-dir", type=given_path, default=DEFAULT_RESULTS, metavar="DIR", help="default: %(default)s"
    )
    return parser


def _export(config: RunConfig, path: Path, target: Path, *, merged: bool) -> Exported:
    """Into a folder beside `target`, which takes its place once it has been checked."""
    from alignbench.pipeline.evaluate import weights
    from alignbench.pipeline.experience import fitting
    from alignbench.pipeline.preparation import pick_device
    from alignbench.seeds import Seeds

    trained = weights(path)
    seeds = Seeds(config.seed)
    data = config.data.build(seeds=seeds.child("data"))
    policy = config.model.build(
        tokenizer=data.tokenizer(), device=pick_device(config.device), seeds=seeds.child("model")
    )
    policy.load(trained)
    prompts = fitting(policy, data.prompts(Split.EVALUATION))[:COMPARED_PROMPTS]
    with file_errors(target, "choose another folder with --output"):
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.parent / f".{target.name}.partial"
        with _alone(target):
            shutil.rmtree(unfinished, ignore_errors=True)  # of an export that was killed
            try:
                unfinished.mkdir()
                exported: Exported = policy.export(unfinished, merged=merged, prompts=prompts)
                if not exported.mean <= exported.tolerance:  # nor NaN
                    raise AlignbenchError(
                        f"Loaded again, the export's log-probabilities differ from the policy's by {exported.mean:.3g} nats a token "
                        f"(allowed: {exported.tolerance:g}): it was not kept."
                    )
                (unfinished / CARD).write_text(_card(path, merged=merged), encoding="utf-8", errors="backslashreplace")
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return exported


def _card(path: Path, *, merged: bool) -> str:
    from alignbench.results.shown.model_card import model_card

    run = path if (path / CONFIG).is_file() else path.parent
    return model_card(path, read_config(run / CONFIG), ["alignbench", *_overrides(run)], merged=merged)


def _overrides(run: Path) -> list[str]:
    """What makes this run again: what was chosen of each kind, the seed, and every setting that these choices leave otherwise."""
    from omegaconf import OmegaConf

    from alignbench.app.compose import composed
    from alignbench.app.target import labels
    from alignbench.results.disk.runs import flat_settings, read_record, read_settings

    who, own = read_record(run).identity, read_settings(run / CONFIG)
    overrides = [f"{kind}={name}" for kind, name in labels(who).items()] + [f"seed={who.seed}"]
    with contextlib.suppress(AlignbenchError):  # a choice that is not installed here: the settings stand below
        cfg, _ = composed(overrides)
        known = flat_settings(OmegaConf.to_yaml(cfg, resolve=True))
        changed = {key: value for key, value in own.items() if key in known and known[key] != value}
        for key, value in changed.items():
            if key.partition(".")[0] not in MEASURED_ELSEWHERE and not key.endswith(".component"):
                overrides.append(f"{key}={json.dumps(value) if isinstance(value, str) else _plain(value)}")
    return list(dict.fromkeys(overrides))


def _plain(value: object) -> str:
    return json.dumps(value).replace(" ", "")


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """While nobody else on this machine writes there. The lock lies in the cache and stays: one that is removed while another process
    waits at it would let in two."""
    lock = lock_of(target)
    held = FileLock(lock)
    with file_errors(lock, "choose another folder with ALIGNBENCH_CACHE=<folder>"):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{target} is being written by another process.") from None
        except NotImplementedError as error:
            raise UserError(
                f"The file system of {lock.parent} has no locks (flock): set ALIGNBENCH_CACHE to a local folder."
            ) from error
    try:
        yield
    finally:
        held.release()


def lock_of(target: Path) -> Path:
    """Of who writes an export."""
    return cache_root("") / f"export-{digest(str(target.expanduser().resolve()))}.lock"
