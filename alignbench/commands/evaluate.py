"""`alignbench evaluate`: the evaluation suite on a finished run, or on a model that was trained elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from alignbench.errors import UserError
from alignbench.paths import given_path, is_setting
from alignbench.results.disk.runs import DEFAULT_RESULTS, is_run, locate


def main(argv: Sequence[str]) -> int:
    """Evaluates one target and adds its row; returns the exit code."""
    options = _parser().parse_args(argv)
    if is_setting(options.target):
        raise UserError(f"Name a run or a model before the settings: alignbench evaluate RUN {options.target}")
    from alignbench.app.ready import check_evaluations, check_selected
    from alignbench.app.target import of_model, of_run

    path = locate(options.target, options.results_dir)
    target = of_run(path, options.overrides) if is_run(path) else of_model(options.target, options.overrides)
    check_evaluations(target.config)
    check_selected(target.config.model, "model")

    # torch is imported here, once the request is known to be good
    from alignbench.pipeline.evaluate import evaluate_target

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
        "--results-dir",
        type=given_path,
        default=DEFAULT_RESULTS,
        metavar="DIR",
        help="where RUN is; default: %(default)s",
    )
    return parser
