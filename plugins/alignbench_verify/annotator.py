"""Rankings by references: what is right is better than what is not. Pairs for an algorithm that learns from preferences."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench import Annotator, DataSource, Prompt, Seeds
from alignbench_verify.config import ReferenceConfig
from alignbench_verify.verifier import Answer, Verifier


class ReferenceAnnotator(Annotator):
    """Two ranks: right and wrong. Where all responses to a prompt are alike it has nothing to say."""

    known = "alignbench_verify.known:reference"

    def __init__(self, config: ReferenceConfig, *, data: DataSource, seeds: Seeds) -> None:
        self._verifier = Verifier(config, config.checks, where="annotator=reference")
        self._verifier.check_data(data)

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        asked = [Answer(prompt, *row) for row in zip(responses, finished, strict=True)]
        right = [all(checks.values()) for checks in self._verifier.passed(asked)]
        return tuple(int(any(right) and not one) for one in right)

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float:
        """1, 0, or .5 where both are right or both wrong."""
        ranks = self.rank(prompt, (first, second), finished=finished)
        return 0.5 * (1 + ranks[1] - ranks[0])
