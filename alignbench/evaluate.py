"""`alignbench evaluate`: the evaluation suite on a finished run, or on a model that was trained elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignbench.config import RunConfig
from alignbench.errors import UserError
from alignbench.plugins import Component, Kind, registry
from alignbench.results.directory import CONFIG, RESULT
from alignbench.results.record import Identity, RunRecord, Status
from alignbench.results.runs import DEFAULT_RESULTS, locate

OF_EVALUATION = ("eval", "judge", "device", "tracker", "results_dir", "cache", "cache_dir", "resume", "tune")
"""Settings of this command; all others are those of the run that is evaluated."""
OF_TRAINING = ("algo", "sft", "pretrain", "annotator", "rankings", "reward", "budget")
"""Settings that say nothing about a model that was trained elsewhere."""
ELSEWHERE = "elsewhere"
"""What stands for the algorithm of such a model."""


@dataclass(frozen=True)
class Target:
    """What is evaluated. `run`: the finished run that it is from, None for a model that was trained elsewhere, whose `name`
    labels its row. `asks_prompts`: whether a data source was chosen; without one questionnaires alone are asked."""

    name: str
    config: RunConfig
    yaml: str
    config_hash: str
    run: Path | None = None
    identity: Identity | None = None
    asks_prompts: bool = True


def main(argv: Sequence[str]) -> int:
    """Evaluates one target and adds its row; returns the exit code."""
    options = _parser().parse_args(argv)
    if "=" in options.target:
        raise UserError(f"Name a run or a model before the settings: alignbench evaluate RUN {options.target}")
    path = locate(options.target, options.results_dir)
    target = (
        of_run(path, options.overrides) if (path / RESULT).is_file() else of_model(options.target, options.overrides)
    )

    # torch is imported here, once the request is known to be good
    from alignbench.evaluation.target import evaluate_target

    evaluate_target(target)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench evaluate",
        description="Evaluate a finished run again, under other settings of evaluation, or a model that was trained\n"
        "elsewhere, with the suite that every run is evaluated with. It becomes a row of its own.\n\n"
        "  alignbench evaluate RUN eval=full eval.path=data reward@judge=hf\n"
        "  alignbench evaluate HuggingFaceTB/SmolLM2-135M-Instruct eval=quick\n"
        "  alignbench evaluate ./my-model data=hh model.dtype=float32",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="RUN_OR_MODEL", help="a run, a folder with a checkpoint, or a model's name on the hub"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as of a run")
    parser.add_argument(
        "--results-dir", type=Path, default=DEFAULT_RESULTS, metavar="DIR", help="where RUN is; default: %(default)s"
    )
    return parser


def of_run(path: Path, overrides: Sequence[str]) -> Target:
    """The run's own settings, and those of the evaluation from the command line."""
    from omegaconf import DictConfig, OmegaConf

    from alignbench.app import composed, typed

    record = RunRecord.from_json((path / RESULT).read_text(encoding="utf-8"))
    if record.status is not Status.FINISHED:
        raise UserError(
            f"{path} is {record.status.value}, not finished: alignbench resume {path.name} goes on with it."
        )
    if foreign := sorted(_sections(overrides) - set(OF_EVALUATION)):
        raise UserError(
            f"{foreign[0]}: a run is evaluated as it was trained. What can be set are {', '.join(OF_EVALUATION[:5])}."
        )
    given, choices = composed(overrides)
    settings = OmegaConf.load(path / CONFIG)
    assert isinstance(settings, DictConfig)
    for key in OF_EVALUATION:
        settings[key] = given[key]
    who = record.identity
    names = choices | {"algo": who.algo_label or who.algo, "model": who.model, "data": who.data}
    names |= {kind: name for kind, name in (("annotator", who.annotator), ("reward", who.reward)) if name}
    config = typed(settings, names)
    return Target(names["algo"], config, config.yaml, config.hash, path, who)


def of_model(name: str, overrides: Sequence[str]) -> Target:
    """A checkpoint by folder or hub id, in the model component that the user chose, or in the one that reads any."""
    from omegaconf import OmegaConf

    from alignbench.app import composed, typed
    from alignbench.results.environment import config_hash

    named = _sections(overrides)
    if useless := sorted(named & set(OF_TRAINING)):
        raise UserError(f"{useless[0]}: {name} is evaluated as it is, and not trained.")
    chosen = [] if any(text.startswith("model=") for text in overrides) else [f"model={_reader().name}"]
    given, choices = composed([*chosen, f"model.path={_quoted(name)}", *overrides])
    config = typed(given, choices)
    plain = OmegaConf.create(config.yaml)
    kept = {key: value for key, value in OmegaConf.to_container(plain).items() if key not in OF_TRAINING}  # type: ignore[union-attr]
    if "data" not in named:
        kept["data"] = None
    label = Path(name).name
    return Target(
        label,
        dataclasses.replace(config, model=dataclasses.replace(config.model, label=label)),
        OmegaConf.to_yaml(OmegaConf.create(kept)),
        config_hash(kept),  # type: ignore[arg-type]
        asks_prompts="data" in named,
    )


def _sections(overrides: Sequence[str]) -> set[str]:
    """The top-level settings that overrides touch: `reward@judge=hf` sets the judge."""
    keys = [text.partition("=")[0].lstrip("+~") for text in overrides]
    return {(key.partition("@")[2] or key).partition(".")[0] for key in keys}


def _reader() -> Component:
    """The model component that reads a checkpoint from any path."""
    found = [component for component in registry().of(Kind.MODEL) if hasattr(component.config, "path")]
    if len(found) != 1:
        names = ", ".join(component.name for component in found) or "none"
        raise UserError(f"Say which model component reads it: model=<name>. Those that take a path: {names}.")
    return found[0]


def _quoted(text: str) -> str:
    """As Hydra's grammar takes any text."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
