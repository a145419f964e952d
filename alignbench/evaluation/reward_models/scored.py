"""Rankings with a source's score of each response: what every measure of a reward source is computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from alignbench.contracts import Policy, RewardSource
from alignbench.records import Prompt, Ranking
from alignbench.scoring import checked_scores
from alignbench.selection import digest

PIECE = 64
"""Responses that a source is asked about at once: what it keeps in a cache of its own is kept where it fails later."""


@dataclass(frozen=True)
class ScoredRanking:
    """A ranking and one score for each of its responses. `cluster`: rankings that are right or wrong together."""

    ranking: Ranking
    scores: tuple[float, ...]

    @property
    def cluster(self) -> str:
        return cluster_of(self.ranking.prompt)

    @property
    def subset(self) -> str:
        return self.ranking.prompt.subset


@dataclass(frozen=True)
class ScoredPair:
    """Two responses of which people (or the truth) prefer one. `margin`: the score of the better less that of the worse; `longer`:
    how many characters the better has more; `style`: how much more elaborate the better is made, None where that is not
    known. `example` names the pair by its content, so that two sources are compared pair by pair."""

    example: str
    cluster: str
    ranking: Ranking
    better: int
    worse: int
    margin: float
    longer: int
    style: int | None = None

    @property
    def subset(self) -> str:
        return self.ranking.prompt.subset

    @property
    def right(self) -> float:
        """1 where the better has the higher score, .5 for a tie."""
        return 0.5 if self.margin == 0 else float(self.margin > 0)


def cluster_of(prompt: Prompt) -> str:
    """The prompt's cluster, or its content: copies of a prompt are not independent, whatever their ids."""
    return prompt.cluster or digest([(m.role, m.content) for m in prompt.messages])


def score_rankings(reward: RewardSource, policy: Policy, rankings: Sequence[Ranking]) -> tuple[ScoredRanking, ...]:
    """Asks the source once about each response; the same response to the same prompt has one score."""
    rows = [_rows(ranking) for ranking in rankings]
    unique = list(dict.fromkeys(row for ranking in rows for row in ranking))
    prompts = {_key(ranking.prompt): ranking.prompt for ranking in rankings}
    known: dict[tuple[str, str, bool], float] = {}
    for start in range(0, len(unique), PIECE):
        piece = unique[start : start + PIECE]
        asked, texts = [prompts[key] for key, _, _ in piece], [text for _, text, _ in piece]
        samples = policy.encode(asked, texts, finished=[ended for _, _, ended in piece])
        with torch.no_grad():
            known.update(zip(piece, checked_scores(reward, samples).tolist(), strict=True))
    return tuple(
        ScoredRanking(ranking, tuple(known[row] for row in found))
        for ranking, found in zip(rankings, rows, strict=True)
    )


def pairs_of(scored: Sequence[ScoredRanking]) -> tuple[ScoredPair, ...]:
    """All pairs of responses with different ranks; ties and identical responses give none."""
    seen: Counter[str] = Counter()
    return tuple(pair for one in scored for pair in _pairs(one, seen))


def _pairs(one: ScoredRanking, seen: Counter[str]) -> Iterator[ScoredPair]:
    ranking, scores = one.ranking, one.scores
    ranks, texts, styles = ranking.ranks, ranking.responses, ranking.styles
    for a in range(len(ranks)):
        for b in range(len(ranks)):
            if ranks[a] >= ranks[b] or texts[a] == texts[b]:
                continue
            name = "/".join(
                filter(None, (ranking.prompt.id, ranking.annotator, digest(one.cluster, texts[a], texts[b])[:8]))
            )
            seen[name] += 1
            yield ScoredPair(
                example=name if seen[name] == 1 else f"{name}#{seen[name]}",
                cluster=one.cluster,
                ranking=ranking,
                better=a,
                worse=b,
                margin=scores[a] - scores[b],
                longer=len(texts[a]) - len(texts[b]),
                style=styles[a] - styles[b] if styles else None,
            )


def _key(prompt: Prompt) -> str:
    return digest(prompt.id, [(m.role, m.content) for m in prompt.messages])


def _rows(ranking: Ranking) -> list[tuple[str, str, bool]]:
    key, ended = _key(ranking.prompt), ranking.finished or (True,) * len(ranking.responses)
    return [(key, text, end) for text, end in zip(ranking.responses, ended, strict=True)]
