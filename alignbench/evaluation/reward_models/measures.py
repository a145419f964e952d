"""All that is measured of a reward source on rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignbench.contracts import Policy, RewardSource
from alignbench.errors import UserError
from alignbench.evaluation.frontier import Frontier
from alignbench.evaluation.reward_models import accuracy, bias
from alignbench.evaluation.reward_models.best_of_n import under_optimisation
from alignbench.evaluation.reward_models.calibration import calibration
from alignbench.evaluation.reward_models.scored import pairs_of, score_rankings
from alignbench.records import ExampleScore, Metric, Ranking
from alignbench.results.compared.statistics import summarise


@dataclass(frozen=True)
class Measured:
    """`subsets`: each part of the data, as it names itself, and how metrics name it."""

    scores: tuple[ExampleScore, ...]
    metrics: Mapping[str, Metric]
    subsets: Mapping[str, str]


def measure(reward: RewardSource, policy: Policy, rankings: Sequence[Ranking], pool: Frontier | None) -> Measured:
    """Scores the rankings and computes every measure that applies; with a pool also what best-of-n makes of it."""
    scored = score_rankings(reward, policy, rankings)
    pairs = pairs_of(scored)
    if not pairs:
        raise UserError(f"None of the {len(rankings)} rankings has two different responses of different rank.")
    subsets = accuracy.subset_names(scored)
    total = accuracy.pair_accuracy(pairs, subsets)
    total += accuracy.best_of_k(scored, subsets)
    total += accuracy.ties(scored)
    total += accuracy.styles(pairs, subsets)
    total += bias.length(scored, pairs)
    if bias.compares(reward):
        total += bias.position(reward, policy, pairs)
    total += calibration(pairs)
    if pool:
        total += under_optimisation(pool)
    metrics = summarise(total.scores, total.specs)
    metrics.update(total.metrics)
    metrics.update(accuracy.mean_of_subsets(metrics, subsets).metrics)
    return Measured(total.scores, metrics, subsets)
