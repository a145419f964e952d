"""Rows rated by who wins against whom, example by example: Bradley-Terry, Elo and the average win rate, by evalica.

A mean says how much better; a rating says how often, whatever the size of a win. The intervals are 95% percentiles of a hierarchical
bootstrap: seeds are drawn, and inside them whole clusters of examples. Where rows met on one seed they are over examples only. Those
of Elo are over the orders in which the same games may be played, and over nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from alignbench.errors import UserError, unknown_name
from alignbench.records import Direction
from alignbench.results.compared.comparable import measured_alike
from alignbench.results.compared.examples import Examples, Scores
from alignbench.results.compared.table import Table

if TYPE_CHECKING:
    import numpy as np
    from evalica import Winner
    from pandas import Series

    from alignbench.results.compared.examples import Floats

SEED = 1952  # of Bradley and Terry: the same runs always give the same ratings
DRAWS = 200
ORDERS = 100


@dataclass(frozen=True)
class Score:
    """A rating with its 95% interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rating:
    """One row. Strengths of `bradley_terry` sum to 1 over all rows, and P(a beats b) = a / (a + b); `elo` starts at 1000 and is the mean
    over orders of the games. `seeds`: of its match on most; of one, the intervals leave training noise out."""

    row: tuple[str, ...]
    bradley_terry: Score
    elo: Score
    average_win_rate: Score
    games: int
    seeds: int


@dataclass(frozen=True)
class Games:
    """`winners` of games between `xs` and `ys`, each counted `weights` times."""

    xs: list[Hashable]
    ys: list[Hashable]
    winners: list[Winner]
    weights: list[float]


@dataclass(frozen=True)
class Match:
    """Two rows by number: `wins` and `ties` [seed, cluster] count the games that the first one won or drew, of `games`."""

    pair: tuple[int, int]
    wins: Floats
    ties: Floats
    games: Floats


def ratings(table: Table, metric: str, examples: Examples) -> tuple[Rating, ...]:
    """The rows that have examples of the metric, the best first. A seed of one row plays the same seed of another, or the
    next where they share none; equal scores are a tie, half a win for each."""
    if metric not in table.metrics:
        raise unknown_name("metric", metric, table.metrics)
    if table.metrics[metric] is Direction.NEITHER:
        raise UserError(f"{metric} has no better direction: nobody wins by it.")
    scores = examples.scores.get(metric)
    answered = [row for row in table.rows if (cell := row.cells.get(metric)) and not cell.missing]
    rows = [row for row in answered if scores and scores.of(row.runs)]
    if scores is None or len(rows) < 2:
        raise UserError(f"Ratings by {metric} take all examples of at least two rows, and {len(rows)} has them.")
    if any(not measured_alike(metric, rows[0], row) for row in rows[1:]):
        raise UserError(
            f"Ratings by {metric}: these rows were measured by different rewards. --only chooses rows of one."
        )
    seeds = [{run.record.identity.seed: i for run in row.runs for i in scores.of([run])} for row in rows]
    better = 1.0 if table.metrics[metric] is Direction.HIGHER else -1.0
    matches = [_match(scores, (a, b), seeds[a], seeds[b], better) for a, b in combinations(range(len(rows)), 2)]
    return rated([row.label for row in rows], matches)


def _match(scores: Scores, pair: tuple[int, int], a: dict[int, int], b: dict[int, int], better: float) -> Match:
    import numpy as np

    shared = sorted(a.keys() & b.keys())
    meetings = [(a[s], b[s]) for s in shared] or list(zip(a.values(), b.values(), strict=False))
    one, other = (scores.values[[meeting[side] for meeting in meetings]] for side in (0, 1))
    played = ~np.isnan(one) & ~np.isnan(other)
    ahead = better * np.sign(one - other)

    def by_cluster(which: Any) -> Floats:
        return np.stack([np.bincount(scores.clusters, row, scores.clusters.max() + 1) for row in which.astype(float)])

    return Match(pair, by_cluster(ahead > 0), by_cluster(played & (ahead == 0)), by_cluster(played))


def rated(labels: Sequence[tuple[str, ...]], matches: Sequence[Match]) -> tuple[Rating, ...]:
    """Those who played, the best first: `matches` are of two of `labels` by number."""
    import numpy as np

    matches = [match for match in matches if match.games.any()]
    met = {i for match in matches for i in match.pair}
    if alone := [" ".join(label) for i, label in enumerate(labels) if i not in met]:
        raise UserError(f"{', '.join(alone)}: no other row has answered one of the same examples. Leave it out.")
    rng = np.random.default_rng(SEED)
    rows = range(len(labels))
    played = _played(_tallies(matches, None), matches)
    draws = [_played(tallies, matches) for _ in range(DRAWS) if any(map(sum, tallies := _tallies(matches, rng)))]

    varied = sum(match.games.sum(axis=0) for match in matches)
    known = np.count_nonzero(varied) > 1 or max(len(match.games) for match in matches) > 1

    def scored(rate: Callable[[Games], Series], ends: Callable[..., Any]) -> list[Score]:
        values = rate(played).reindex(rows).to_numpy()
        drawn = np.array([rate(games).reindex(rows).to_numpy() for games in draws])
        low, high = ends(drawn if known else drawn * math.nan, [2.5, 97.5], axis=0)
        return [Score(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]

    orders = np.stack([elo(_shuffled(played, rng)).reindex(rows).to_numpy() for _ in range(ORDERS)])
    ends = np.percentile(orders, [2.5, 97.5], axis=0)
    elos = [Score(float(v), float(a), float(b)) for v, a, b in zip(orders.mean(0), *ends, strict=True)]
    # A draw may leave a row without games: of its win rate the others tell, where a strength without bound is no number.
    rates = scored(win_rates, np.nanpercentile if known else np.percentile)
    table = zip(labels, scored(strengths, np.percentile), elos, rates, strict=True)
    played_by = [round(sum(m.games.sum() for m in matches if i in m.pair)) for i in rows]
    seeds = [max(len(m.games) for m in matches if i in m.pair) for i in rows]
    found = [Rating(*scores, n, met) for scores, n, met in zip(table, played_by, seeds, strict=True)]
    return tuple(sorted(found, key=lambda rating: -rating.average_win_rate.value))


def _tallies(matches: Sequence[Match], rng: np.random.Generator | None) -> list[tuple[float, float, float]]:
    """Wins of the first, ties and wins of the second in each match; with a generator in a bootstrap draw of it. All matches
    share the draw of clusters: they are the same prompts."""
    import numpy as np

    clusters = matches[0].games.shape[1]
    weights = np.ones(clusters) if rng is None else rng.multinomial(clusters, np.full(clusters, 1 / clusters))
    drawn: dict[int, Any] = {}  # and of seeds, where they have as many
    found = []
    for match in matches:
        n = len(match.games)
        if n not in drawn:
            some = max(n - 1, 1)  # of S seeds S - 1: otherwise few seeds seem to vary too little (Rao & Wu 1988)
            drawn[n] = np.ones(n) if rng is None else rng.multinomial(some, np.full(n, 1 / n)) * n / some
        wins, ties, games = (float(drawn[n] @ part @ weights) for part in (match.wins, match.ties, match.games))
        found.append((wins, ties, games - wins - ties))
    return found


def _played(tallies: Sequence[tuple[float, float, float]], matches: Sequence[Match]) -> Games:
    from evalica import Winner

    outcomes = (Winner.X, Winner.Draw, Winner.Y)
    games = [
        (*match.pair, outcome, count)
        for match, tally in zip(matches, tallies, strict=True)
        for outcome, count in zip(outcomes, tally, strict=True)
        if count > 0
    ]
    return Games(*(list(column) for column in zip(*games, strict=True)))


def strengths(games: Games) -> Series:
    """Bradley-Terry strengths by evalica, scaled to a sum of 1: only their ratios are determined.

    NaN where there are none: they are finite only if no group of rows wins all of its games against the others (Ford 1957)."""
    import evalica

    found = evalica.bradley_terry(
        games.xs, games.ys, games.winners, weights=games.weights, tolerance=1e-9, limit=10_000
    ).scores
    return found / found.sum() if _connected(games) else found * math.nan


def _connected(games: Games) -> bool:
    """Whether each row has beaten or drawn with each other one, if by way of others."""
    import evalica
    import numpy as np
    from scipy.sparse.csgraph import connected_components

    numbers = {row: i for i, row in enumerate(dict.fromkeys([*games.xs, *games.ys]))}
    beaten = np.zeros((len(numbers), len(numbers)))
    for x, y, winner in zip(games.xs, games.ys, games.winners, strict=True):
        if winner != evalica.Winner.Y:
            beaten[numbers[x], numbers[y]] = 1
        if winner != evalica.Winner.X:
            beaten[numbers[y], numbers[x]] = 1
    return bool(connected_components(beaten, connection="strong", return_labels=False) == 1)


def win_rates(games: Games) -> Series:
    """The mean over a row's opponents of its share of wins, ties half."""
    import evalica

    return evalica.average_win_rate(games.xs, games.ys, games.winners, weights=games.weights).scores


def elo(games: Games) -> Series:
    """Elo from 1000 with K = 4, in the order of the games, each played as often as its weight says."""
    import evalica

    return evalica.elo(games.xs, games.ys, games.winners, weights=games.weights).scores


def _shuffled(games: Games, rng: np.random.Generator) -> Games:
    """Every game by itself, in a drawn order: Elo depends on it."""
    import numpy as np

    order = rng.permutation(np.repeat(np.arange(len(games.xs)), np.round(games.weights).astype(int)))
    xs, ys, winners = ([column[i] for i in order] for column in (games.xs, games.ys, games.winners))
    return Games(xs, ys, winners, [1.0] * len(order))
