"""How often the intervals of a table hold what is true.

    python benchmarks/coverage.py

draws examples whose truth is known, summarises them as a run does and reads the interval as a table does: of one seed over 2 to 200
clusters (alone or five examples each), of 3 and 5 seeds over the training noise, on the same prompts. Means should be held in 93% to 97%
of cases. For shares no interval can be exact, since a count is whole: on average over the true share at least 93%, and nowhere
below 85%; they may hold more. `shown` is how often there is an interval at all. Scores as skewed as an exponential distribution are
printed and have no limit below 5 clusters: that few points do not show a tail. A figure may be off by the chance of its draws. The exit code is 1 where a figure is outside its limits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignbench import Direction, ExampleScore, Metric, MetricSpec
from alignbench.results.compared.statistics import interval, summarise

Floats = NDArray[np.float64]
CLUSTERS = (2, 3, 5, 8, 12, 20, 50, 200)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 0.95)
LIMITS, LEAST_SHARE, FEW = (0.93, 0.97), 0.85, 5
CHANCE = 2.0
"""Standard errors of the draws by which a figure may be off."""


@dataclass(frozen=True)
class Case:
    """`draw(rng, clusters, seeds)` gives the scores [seed, cluster, example] and what is true of their mean."""

    name: str
    share: bool
    draw: Callable[[np.random.Generator, int, int], tuple[Floats, float]]
    strong_skew: bool = False


def means(
    noise: Callable[[np.random.Generator, tuple[int, ...]], Floats], size: int
) -> Callable[..., tuple[Floats, float]]:
    """Of one seed: prompts are drawn and the truth is 0. Of several: what these prompts give, and each seed moves it."""

    def draw(rng: np.random.Generator, clusters: int, seeds: int) -> tuple[Floats, float]:
        shape = (clusters, size)
        prompts = noise(rng, (clusters, 1)) + (noise(rng, shape) if size > 1 else 0.0)
        if seeds == 1:
            return np.broadcast_to(prompts, (1, *shape)), 0.0
        moved = 0.1 * rng.normal(size=(seeds, 1, 1)) + 0.5 * noise(rng, (seeds, *shape))
        return prompts + moved, float(np.broadcast_to(prompts, shape).mean())

    return draw


def shares(p: float, size: int, samples: int = 1, ties: float = 0.0) -> Callable[..., tuple[Floats, float]]:
    """Answers of a cluster go together: each has its own probability, Beta with mean p. `ties`: that part of them are 1/2."""

    def draw(rng: np.random.Generator, clusters: int, seeds: int) -> tuple[Floats, float]:
        own = (
            rng.beta(2 * p, 2 * (1 - p), size=(clusters, 1))
            if size * samples > 1 or seeds > 1
            else np.full((clusters, 1), p)
        )
        own = np.broadcast_to(own, (clusters, size))
        moved = own
        if seeds > 1:  # training noise: some seeds answer right more often than others, on the same prompts
            step = 0.2 * rng.normal(size=(seeds, 1, 1)) * own * (1 - own)
            moved = np.clip(own + step, 0, 1)
        hits = rng.binomial(samples, np.broadcast_to(moved, (seeds, clusters, size))) / samples
        tied = rng.random(hits.shape) < ties
        truth = p if seeds == 1 else float(own.mean())
        return np.where(tied, 0.5, hits), (1 - ties) * truth + ties / 2

    return draw


def skewed(shape: float) -> Callable[[np.random.Generator, tuple[int, ...]], Floats]:
    return lambda rng, size: (rng.gamma(shape, size=size) - shape) / np.sqrt(shape)


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    return rng.normal(size=size)


MEANS = [
    Case(f"{name}{', five examples each' if size > 1 else ''}", False, means(noise, size), name == "exponential")
    for name, noise in (("normal", normal), ("skewed (gamma 4)", skewed(4)), ("exponential", skewed(1)))
    for size in (1, 5)
]
SHARE_KINDS: tuple[tuple[str, dict[str, float]], ...] = (
    ("share", {"size": 1}),
    ("share, five examples each", {"size": 5}),
    ("share, four samples", {"size": 1, "samples": 4}),
    ("share, 9 of 10 tied", {"size": 1, "ties": 0.9}),
)


def coverage(case: Case, clusters: int, seeds: int, draws: int) -> tuple[float, float]:
    """The part of the intervals that hold the truth, and how often there is one."""
    rng = np.random.default_rng([clusters, seeds, *case.name.encode()])
    spec = MetricSpec("a/b", Direction.HIGHER, share=case.share)
    hits, shown = 0, 0
    for _ in range(draws):
        scores, truth = case.draw(rng, clusters, seeds)
        low, high = interval([_summary(seed, spec) for seed in scores])
        if np.isfinite(high - low):
            shown += 1
            hits += low - 1e-9 <= truth <= high + 1e-9
    return (hits / shown if shown else np.nan), shown / draws


def _summary(scores: Floats, spec: MetricSpec) -> Metric:
    examples = [
        ExampleScore(spec.name, f"{i}.{j}", float(value), f"c{i}")
        for i, row in enumerate(scores)
        for j, value in enumerate(row)
    ]
    return summarise(examples, [spec])[spec.name]


def figures(draws: int) -> Iterator[tuple[str, int, int, float, float, float, bool]]:
    """Name, seeds, clusters, coverage, the lowest over true shares, how often shown, whether within the limits."""
    chance = CHANCE * np.sqrt(0.05 * 0.95 / draws)
    for seeds in (1, 3, 5):
        for clusters in CLUSTERS:
            for case in MEANS:
                held, shown = coverage(case, clusters, seeds, draws)
                free = shown == 0 or (case.strong_skew and clusters < FEW)
                yield (
                    case.name,
                    seeds,
                    clusters,
                    held,
                    held,
                    shown,
                    bool(free or LIMITS[0] - chance <= held <= LIMITS[1] + chance),
                )
            for name, options in SHARE_KINDS:
                found = [
                    coverage(Case(name, True, shares(p, **options)), clusters, seeds, draws // 4)  # type: ignore[arg-type]
                    for p in SHARES
                ]
                held, shown = (float(np.mean([f[i] for f in found])) for i in (0, 1))
                least = min(f[0] for f in found)
                yield name, seeds, clusters, held, least, shown, held >= LIMITS[0] and least >= LEAST_SHARE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="of each figure (default: %(default)s)")
    print(f"{'scores':<34} {'seeds':>5} {'clusters':>8} {'coverage':>9} {'least':>7} {'shown':>6}")
    outside = 0
    for name, seeds, clusters, held, least, shown, within in figures(parser.parse_args().draws):
        outside += not within
        mark = "" if within else "  outside"
        print(f"{name:<34} {seeds:5} {clusters:8} {held:9.1%} {least:7.1%} {shown:6.0%}{mark}", flush=True)
    print(f"\n{outside} figures outside their limits")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
