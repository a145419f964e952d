"""The annotator of the exact world: it prefers by the true reward, with noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alignbench import Annotator, DataSource, Prompt, Seeds, UserError
from alignbench_exact.config import ExactAnnotatorConfig
from alignbench_exact.source import ExactData


class ExactAnnotator(Annotator):
    """Adds Gumbel noise to the rewards: a ranking is Plackett-Luce, and P(y over y') = sigmoid(r(y) - r(y'))."""

    def __init__(self, config: ExactAnnotatorConfig, *, data: DataSource, seeds: Seeds) -> None:
        if not isinstance(data, ExactData):
            raise UserError(
                "annotator=exact ranks responses to data=exact only: choose data=exact, or leave annotator out, and whoever belongs "
                "to your data ranks (annotator=auto)."
            )
        self._data, self._rng = data, seeds.python("noise")

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        # Equal responses tie: one draw of noise for each different one.
        noisy = {
            response: self._data.reward(prompt, response[0], finished=response[1]) - math.log(-math.log(self._noise()))
            for response in dict.fromkeys(zip(responses, finished, strict=True))
        }
        scores = [noisy[response] for response in zip(responses, finished, strict=True)]
        return tuple(sum(other > score for other in scores) for score in scores)

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float:
        rewards = (
            self._data.reward(prompt, text, finished=end) for text, end in zip((first, second), finished, strict=True)
        )
        return 1.0 / (1.0 + math.exp(-next(rewards) + next(rewards)))

    def _noise(self) -> float:
        return 1.0 - self._rng.random()  # within (0, 1]
