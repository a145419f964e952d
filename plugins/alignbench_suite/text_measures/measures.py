"""Every measure of how different the texts of a set are, by name. What the set is, is the caller's affair: K responses to one
prompt, or one response to each of K prompts. All depend on K and compare only at equal K.

They keep the scale of the field: of K identical texts that do not repeat themselves distinct-n and `unique` are 1 / K, `vendi`
and `novelty_distinct` 1, self-BLEU 1. Those that begin at nothing are `novelty` and `cosine_distance`: exactly 0 for
identical texts. Texts that have nothing in common are the maximum (of self-BLEU: the minimum) of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alignbench import Direction
from alignbench_suite.text_measures import embeddings, ngrams, novelty
from alignbench_suite.text_measures.embeddings import Vectors
from alignbench_suite.text_measures.ngrams import Tokens


@dataclass(frozen=True)
class Known:
    """What is known of each text that a measure may meet: its token ids without special tokens, and its unit vector [D].

    `vocabulary` is the tokenizer's size; `novelty_cosine` the nearness from which two texts are one class, 0 for equal
    normalised texts."""

    tokens: Mapping[str, Tokens]
    vocabulary: int
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    novelty_cosine: float = 0.0

    def classes(self, texts: Sequence[str]) -> list[int]:
        if self.novelty_cosine:
            return novelty.classes_by_cosine(self.stacked(texts), self.novelty_cosine)
        return novelty.classes_by_text(texts)

    def stacked(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.vectors[text] for text in texts])


@dataclass(frozen=True)
class Measure:
    """`of` gives None where a measure is undefined for these texts."""

    direction: Direction
    unit: str
    of: Callable[[Sequence[str], Known], float | None]


def _distinct(n: int) -> Measure:
    unit = f"distinct {n}-grams / {n}-grams"
    return Measure(Direction.HIGHER, unit, lambda texts, known: ngrams.distinct([known.tokens[t] for t in texts], n))


LEXICAL: Mapping[str, Measure] = {
    **{f"distinct_{n}": _distinct(n) for n in (1, 2, 3, 4)},
    "ead": Measure(
        Direction.HIGHER,
        "expectation-adjusted distinct n-grams, mean of n = 1..5",
        lambda texts, known: ngrams.ead([known.tokens[t] for t in texts], known.vocabulary),
    ),
    "self_bleu": Measure(
        Direction.LOWER,
        "BLEU against the other responses, 0 to 1",
        lambda texts, known: ngrams.self_bleu([known.tokens[t] for t in texts]),
    ),
    "unique": Measure(
        Direction.HIGHER, "share of responses that are different", lambda texts, known: len(set(texts)) / len(texts)
    ),
}
NOVELTY: Mapping[str, Measure] = {
    "novelty": Measure(
        Direction.HIGHER, "(classes - 1) / (K - 1), 0 to 1", lambda texts, known: novelty.novelty(known.classes(texts))
    ),
    "novelty_distinct": Measure(
        Direction.HIGHER,
        "classes among K responses, 1 to K",
        lambda texts, known: novelty.distinct_classes(known.classes(texts)),
    ),
}
EMBEDDED: Mapping[str, Measure] = {
    "cosine_distance": Measure(
        Direction.HIGHER,
        "1 - cosine of sentence embeddings, mean over pairs",
        lambda texts, known: embeddings.cosine_distance(known.stacked(texts)),
    ),
    "vendi": Measure(
        Direction.HIGHER,
        "effective number of different responses, 1 to K",
        lambda texts, known: embeddings.vendi(known.stacked(texts)),
    ),
}


def diversity_of(texts: Sequence[str], token_ids: Sequence[Tokens], vocabulary: int) -> dict[str, float]:
    """All that can be said of K texts without a model, by name: the measures LEXICAL and NOVELTY. What is undefined for
    these texts is left out: everything where there are fewer than two.

    `token_ids`: of each text, special tokens left out; `vocabulary`: the size of that tokenizer."""
    if len(texts) < 2:
        return {}
    known = Known(dict(zip(texts, token_ids, strict=True)), vocabulary)
    found = {name: measure.of(texts, known) for name, measure in {**LEXICAL, **NOVELTY}.items()}
    return {name: value for name, value in found.items() if value is not None}
