"""Which texts are compared with one another (Kirk et al. 2023, arXiv 2310.06452): the responses to one prompt, "per input", or
one response to each of several prompts, "across inputs".

Across inputs the paper measures the one set of all prompts. One number has no standard error and pairs with nothing, so here
prompts are parted into bundles of fixed size, and a bundle is the example. Bundles are the same for every model: prompts are
ordered by a hash of their id. They are independent: of a cluster only one prompt is used, so that the twins of a question
neither share a bundle nor tie two together. Prompts that do not fill a bundle are left out, and a lone bundle too: its value
would have no interval."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from alignbench_suite.scores import Groups


@dataclass(frozen=True)
class Example:
    """Sets of texts whose mean is one score."""

    name: str
    cluster: str
    sets: tuple[tuple[str, ...], ...]


def per_input(groups: Groups) -> list[Example]:
    """One set per prompt, its responses; prompts with a single response are left out."""
    return [
        Example(group[0].prompt.id, group[0].prompt.cluster, (tuple(g.response for g in group),))
        for group in groups
        if len(group) > 1
    ]


def across_inputs(groups: Groups, size: int) -> list[Example]:
    """One example per bundle of `size` prompts; its set j holds response j to each of them."""
    seen: set[tuple[bool, str]] = set()
    independent = []
    for group in sorted(groups, key=lambda group: _hash(group[0].prompt.id)):
        prompt = group[0].prompt
        key = (bool(prompt.cluster), prompt.cluster or prompt.id)
        if key not in seen:
            seen.add(key)
            independent.append(group)
    found = []
    for start in range(0, len(independent) - size + 1, size):
        bundle = independent[start : start + size]
        # Named by its prompts: bundles of other prompts are never paired with it.
        name = f"bundle {_hash(chr(0).join(group[0].prompt.id for group in bundle)).hex()[:12]}"
        texts = ([g.response for g in group] for group in bundle)
        found.append(Example(name, "", tuple(zip(*texts, strict=False))))
    return found if len(found) > 1 else []


def spread(examples: Sequence[Example], limit: int) -> Sequence[Example]:
    """At most `limit` examples, chosen by a hash of their name: the same ones for every model, whatever their order.

    A fixed stride would not do: prompts often come in cycles (no, right, wrong opinion) and it would pick one kind."""
    if not 0 < limit < len(examples):
        return examples
    return sorted(examples, key=lambda example: _hash(example.name))[:limit]


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
