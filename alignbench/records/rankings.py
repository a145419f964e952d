"""Rankings: from scores, and to pairs. Part of the door, as `functional`."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench.records import PreferencePair, Ranking


def ranks_of(values: Sequence[float]) -> tuple[int, ...]:
    """The rank of each, 0 is the highest value; equal values are ties."""
    levels = sorted(set(values), reverse=True)
    return tuple(map(levels.index, values))


def ranking_to_pairs(ranking: Ranking, which: str = "all") -> list[PreferencePair]:
    """The pairs of a ranking with different ranks, best first: all of them, or best_worst (one of the best against one of
    the worst). Ties and identical responses give none."""
    order = sorted(range(len(ranking.ranks)), key=lambda k: ranking.ranks[k])
    ended = ranking.finished or (True,) * len(order)
    compared = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    if which == "best_worst":
        compared = [(order[0], order[-1])]
    return [
        PreferencePair(ranking.prompt, ranking.responses[a], ranking.responses[b], finished=(ended[a], ended[b]))
        for a, b in compared
        if ranking.ranks[a] != ranking.ranks[b] and ranking.responses[a] != ranking.responses[b]
    ]
