"""Diversity of a set of texts by their n-grams of token ids. What the set is (the responses to one prompt, or one response
to each of several prompts) is the caller's affair; values compare only between sets of equal size."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics import BLEU

from alignbench_suite.scores import mean

Tokens = Sequence[int]

# Texts are token ids joined by spaces, so that sacrebleu must not tokenise again. The effective order leaves out
# n-grams longer than the response: without it, four identical two-word answers would not score 1.
_BLEU = BLEU(tokenize="none", effective_order=True)


def ngram_counts(responses: Sequence[Tokens], n: int) -> tuple[int, int]:
    """Different n-grams and all n-grams of the responses, none of which spans two responses."""
    ngrams = [tuple(r[i : i + n]) for r in responses for i in range(len(r) - n + 1)]
    return len(set(ngrams)), len(ngrams)


def distinct(responses: Sequence[Tokens], n: int) -> float | None:
    """Different n-grams / n-grams (Li et al. 2016, arXiv 1510.03055); None where no response has n tokens.

    K identical texts that do not repeat themselves give 1/K, texts that share nothing 1."""
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
    """Mean sentence BLEU of each response against the others (Zhu et al. 2018, arXiv 1802.01886): 1 for identical
    responses, 0 for those that share no token. None of a single one, which has no others.

    High means alike. BLEU of an empty response is 0 by definition; here two empty responses are alike and score 1."""
    if len(responses) < 2:
        return None
    texts = [" ".join(map(str, r)) for r in responses]

    def against_others(i: int) -> float:
        others = texts[:i] + texts[i + 1 :]
        return min(_BLEU.sentence_score(texts[i], others).score / 100, 1.0) if texts[i] else float("" in others)

    return mean(against_others(i) for i in range(len(texts)))
