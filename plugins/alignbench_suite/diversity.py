"""Diversity of the responses to one prompt ("per-input diversity", Kirk et al. 2023, arXiv 2310.06452).

N-grams are of token ids: the tokenizer's of the response text, special tokens left out. Values depend on the number of
responses per prompt, K, and compare only at equal K. With K = 1 only the entropy is defined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sacrebleu.metrics import BLEU

from alignbench import Direction, Evaluation, ExampleScore, Generation, MetricSpec, Subject
from alignbench_suite.config import DiversityConfig
from alignbench_suite.scores import Groups, mean, per_group

Tokens = Sequence[int]

# Texts are token ids joined by spaces, so that sacrebleu must not tokenise again. The effective order leaves out
# n-grams longer than the response: without it, four identical two-word answers would not score 1.
_BLEU = BLEU(tokenize="none", effective_order=True)


class Diversity(Evaluation):
    def __init__(self, config: DiversityConfig) -> None:
        self.config = config

    def specs(self) -> Sequence[MetricSpec]:
        return (
            MetricSpec("diversity/entropy", Direction.HIGHER, "nats per token"),
            MetricSpec("diversity/distinct_2", Direction.HIGHER, "distinct bigrams / bigrams"),
            MetricSpec("diversity/ead", Direction.HIGHER, "expectation-adjusted distinct n-grams, mean of n = 1..5"),
            MetricSpec("diversity/self_bleu", Direction.LOWER, "BLEU against the prompt's other responses, 0 to 1"),
            MetricSpec("diversity/unique", Direction.HIGHER, "share of responses to a prompt that are different"),
        )

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        groups = subject.by_prompt()
        several = [group for group in groups if len(group) > 1]
        texts = sorted({g.response for group in several for g in group})
        ids: dict[str, Tokens] = {}
        if texts:
            ids = dict(zip(texts, subject.tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True))
        vocabulary = len(subject.tokenizer)

        def tokens(group: Sequence[Generation]) -> list[Tokens]:
            return [ids[g.response] for g in group]

        sampled = spread(several, self.config.self_bleu_prompts)
        return [
            # The best of several responses do not come from the distribution whose entropy is known.
            *(per_group("diversity/entropy", groups, entropy) if subject.candidates == 1 else []),
            *per_group("diversity/distinct_2", several, lambda group: distinct(tokens(group), 2)),
            *per_group("diversity/ead", several, lambda group: ead(tokens(group), vocabulary)),
            *per_group("diversity/self_bleu", sampled, lambda group: self_bleu(tokens(group))),
            *per_group("diversity/unique", several, unique),
        ]


def entropy(group: Sequence[Generation]) -> float | None:
    """Mean over all response tokens of the prompt; None where there is no token."""
    tokens = sum(g.tokens for g in group)
    return sum(g.entropy * g.tokens for g in group if g.tokens) / tokens if tokens else None


def unique(group: Sequence[Generation]) -> float:
    return len({g.response for g in group}) / len(group)


def ngram_counts(responses: Sequence[Tokens], n: int) -> tuple[int, int]:
    """Different n-grams and all n-grams of the responses, none of which spans two responses."""
    ngrams = [tuple(r[i : i + n]) for r in responses for i in range(len(r) - n + 1)]
    return len(set(ngrams)), len(ngrams)


def distinct(responses: Sequence[Tokens], n: int) -> float | None:
    """Different n-grams / n-grams (Li et al. 2016, arXiv 1510.03055); None where no response has n tokens."""
    different, total = ngram_counts(responses, n)
    return different / total if total else None


def ead(responses: Sequence[Tokens], vocabulary: int, orders: Sequence[int] = (1, 2, 3, 4, 5)) -> float | None:
    """N / (V (1 - ((V - 1) / V)^C)), N different of C n-grams, V the tokenizer's size (Liu et al. 2022, arXiv
    2202.13587), the mean over n = 1..5 (Kirk et al. 2023). Unlike distinct-n it does not fall with mere length.

    It may exceed 1: what it divides by is the expectation of C uniform draws from V, for every n. Orders longer than
    every response are left out."""
    values = []
    for n in orders:
        different, total = ngram_counts(responses, n)
        if total:
            values.append(different / (vocabulary * (1 - ((vocabulary - 1) / vocabulary) ** total)))
    return mean(values)


def self_bleu(responses: Sequence[Tokens]) -> float | None:
    """Mean sentence BLEU of each response against the others, from 0 to 1 (Zhu et al. 2018, arXiv 1802.01886).

    High means alike. BLEU of an empty response is 0 by definition; here two empty responses are alike and score 1."""
    texts = [" ".join(map(str, r)) for r in responses]

    def against_others(i: int) -> float:
        others = texts[:i] + texts[i + 1 :]
        return min(_BLEU.sentence_score(texts[i], others).score / 100, 1.0) if texts[i] else float("" in others)

    return mean(against_others(i) for i in range(len(texts)))


def spread(groups: Groups, limit: int) -> Groups:
    """At most `limit` prompts, chosen by a hash of their id: the same ones for every model, whatever their order.

    A fixed stride would not do: prompts often come in cycles (no, right, wrong opinion) and it would pick one kind."""
    if not 0 < limit < len(groups):
        return groups
    return sorted(groups, key=lambda group: hashlib.sha256(group[0].prompt.id.encode()).digest())[:limit]
