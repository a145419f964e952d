"""`alignbench evaluate-reward`: how good a reward source is, on any preference data and under optimisation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from alignbench.paths import given_path
from alignbench.results.disk.runs import DEFAULT_RESULTS


def main(argv: Sequence[str]) -> int:
    """Measures one reward source and adds its row; returns the exit code."""
    options = _parser().parse_intermixed_args(argv)
    from alignbench.app.reward_target import Measuring, reward_target

    measuring = Measuring(options.all, options.best_of, options.questions)
    target = reward_target(options.overrides, measuring, options.results_dir)

    # torch is imported here, once the request is known to be good
    from alignbench.pipeline.evaluate_reward import evaluate_reward

    evaluate_reward(target)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench evaluate-reward",
        description="Measure a reward source: accuracy by subset, biases, calibration; and where the truth is known, what\n"
        "becomes of it when responses are chosen by the source. It becomes a row that `compare` shows.\n\n"
        "  alignbench evaluate-reward reward=hf reward.model=<owner/name> data=preferences data.path=reward-bench-2.parquet\n"
        "  alignbench evaluate-reward reward=judge reward.model=<name> data=preferences data.path=judgebench.jsonl\n"
        "  alignbench evaluate-reward reward=<a run>                  its reward, on its held-out rankings\n"
        "  alignbench evaluate-reward reward=dpo:<a run>              what its policy prefers to its SFT model\n"
        "  alignbench evaluate-reward reward=learned rankings.prompts=400        fitted first, as a run would",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("overrides", nargs="+", metavar="key=value", help="reward=<what>, and settings as of a run")
    add("--all", action="store_true", help="also rankings that the source was fitted to")
    add(
        "--best-of",
        type=int,
        default=64,
        metavar="N",
        help="responses to choose from where the truth is known; 0: none (default: %(default)s)",
    )
    add(
        "--questions",
        type=int,
        default=100,
        metavar="N",
        help="evaluation questions that they answer (default: %(default)s)",
    )
    add(
        "--results-dir",
        type=given_path,
        default=DEFAULT_RESULTS,
        metavar="DIR",
        help="where a run is; default: %(default)s",
    )
    return parser
