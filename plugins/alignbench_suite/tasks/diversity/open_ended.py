"""Several answers to prompts with many good ones: how different are they? N-grams are of words, since the tokenizer of a model
behind lm-eval need not be known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignbench_suite.measures import diversity_of
from alignbench_suite.tasks import PUBLIC
from alignbench_suite.tasks.files import Row, documents, own, public

MEASURED = ("distinct_2", "self_bleu", "unique", "novelty")


def embedded(**_: object) -> dict[str, Any]:
    return documents(map(document, own("open_ended")))


def noveltybench(*, path: str = "", **_: object) -> dict[str, Any]:
    """The 100 curated prompts of NoveltyBench (Zhang et al. 2025, arXiv 2504.05228)."""
    return documents(map(document, public(PUBLIC["alignbench_noveltybench"], path, _from_hub)))


def document(row: Row) -> Row:
    return {"id": row["id"], "cluster": row["id"], "prompt": row["prompt"]}


def process_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, float]:
    """A measure that is undefined for these answers (none has two words) is not given."""
    texts = list(results[0])
    numbers: dict[str, int] = {}
    words = [[numbers.setdefault(w, len(numbers)) for w in re.findall(r"\w+|[^\w\s]", text)] for text in texts]
    found = diversity_of(texts, words, max(len(numbers), 1))
    return {f"open_{name}": found[name] for name in MEASURED if name in found}


def _from_hub() -> Any:
    from datasets import load_dataset

    return load_dataset("yimingzhang/novelty-bench", split="curated")
