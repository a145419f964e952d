"""Several answers to prompts with many good ones: how different are they? N-grams are of words, since the tokenizer of a model
behind lm-eval need not be known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignbench import UserError
from alignbench_suite.tasks import PUBLIC
from alignbench_suite.tasks.files import Row, documents, own, public
from alignbench_suite.text_measures.measures import diversity_of

MEASURED = ("distinct_2", "self_bleu", "unique", "novelty")


def embedded(**_: object) -> dict[str, Any]:
    return documents(document(i, row) for i, row in enumerate(own("open_ended"), 1))


def noveltybench(*, path: str = "", **_: object) -> dict[str, Any]:
    """The 100 curated prompts of NoveltyBench (Zhang et al. 2025, arXiv 2504.05228)."""
    rows = public(PUBLIC["alignbench_noveltybench"], path, _from_hub)
    return documents(document(i, row) for i, row in enumerate(rows, 1))


def document(number: int, row: Row) -> Row:
    texts = [row.get(name) for name in ("id", "prompt")] if isinstance(row, Mapping) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(
            f"{PUBLIC['alignbench_noveltybench']}, row {number}: no object with the texts `id` and `prompt`."
        )
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
