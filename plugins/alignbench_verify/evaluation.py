"""How many prompts are answered right, by their references: pass@1 and pass@k, of all and of each subset."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from alignbench import DataSource, Direction, Evaluation, ExampleScore, MetricSpec, Split, Subject, UserError
from alignbench_verify.config import VerifiedConfig
from alignbench_verify.verifier import Answer, Verifier

FAMILY = "verified"
TRIES = (1, 2, 4, 8, 16, 32, 64)
"""Each k of pass@k that there is a metric for, as far as there are so many responses to a prompt; of a subset the first and the
last of them alone."""
MOST_SUBSETS = 16


def pass_at_k(n: int, right: int, k: int) -> float:
    """The probability that of k responses drawn from these n without putting any back, of which `right` are right, one is right:
    1 - C(n - right, k) / C(n, k), unbiased for k draws from the model (Chen et al. 2021, arXiv 2107.03374, equation 1)."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


class Verified(Evaluation):
    """Left out for prompts without references."""

    known = "alignbench_verify.known:verified"

    def __init__(self, config: VerifiedConfig) -> None:
        self.config = config
        self._verifier = Verifier(config, config.checks, where="eval.options.verified")
        self._subsets = {_name(subset): subset for subset in config.subsets}
        if len(self._subsets) > MOST_SUBSETS or len(self._subsets) < len(config.subsets):
            raise UserError(
                f"eval.options.verified.subsets names {len(config.subsets)} subsets: at most {MOST_SUBSETS}, and each once."
            )

    def applies(self, data: DataSource, *, ordinary_text: bool) -> bool:
        return any(self._verifier.reads(prompt) for prompt in data.prompts(Split.EVALUATION))

    def specs(self) -> Sequence[MetricSpec]:
        known = []
        for subset in ("", *self._subsets):
            of = f" of {subset}" if subset else ""
            known += [
                MetricSpec(
                    _metric(subset, k),
                    Direction.HIGHER,
                    f"share of responses{of} that are right" if k == 1 else f"share of prompts{of}, right in {k} tries",
                    share=True,
                )
                for k in TRIES
            ]
        return known

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        groups = [group for group in subject.by_prompt() if self._verifier.reads(group[0].prompt)]
        asked = [generation for group in groups for generation in group]
        passed = self._verifier.passed([Answer(g.prompt, g.response, g.finished) for g in asked])
        right = {(g.prompt.id, g.index): all(checks.values()) for g, checks in zip(asked, passed, strict=True)}
        scores = []
        for group in groups:
            prompt, n = group[0].prompt, len(group)
            count = sum(right[prompt.id, generation.index] for generation in group)
            tries = [k for k in TRIES if k <= n]
            wanted = {"": tries}
            if (own := _name(prompt.subset)) in self._subsets:
                wanted[own] = sorted({tries[0], tries[-1]})
            scores += [
                ExampleScore(_metric(subset, k), prompt.id, pass_at_k(n, count, k), prompt.cluster)
                for subset, ks in wanted.items()
                for k in ks
            ]
        return scores


def _name(subset: str) -> str:
    """As part of a metric's name: lower case, and one underscore for whatever is no letter or digit."""
    return re.sub(r"[^a-z0-9]+", "_", subset.casefold()).strip("_")


def _metric(subset: str, k: int) -> str:
    return f"{FAMILY}/{subset}_pass_at_{k}" if subset else f"{FAMILY}/pass_at_{k}"
