"""What an engine is asked for and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignbench import Sampling, UserError

LEAST = (0, 11)
"""The first version of vLLM whose answers hold token ids and whose log-probabilities may be those of the sampled distribution."""


@dataclass(frozen=True)
class Question:
    """One response to sample. `ends`: the tokens any of which ends it; `suppressed`: those that it may not hold."""

    prompt: tuple[int, ...]
    seed: int
    sampling: Sampling
    max_new_tokens: int
    ends: tuple[int, ...]
    suppressed: tuple[int, ...]

    @property
    def processed(self) -> bool:
        """Whether its log-probabilities are other than those of the model's bare logits."""
        return self.sampling.temperature != 1 or bool(self.suppressed)


@dataclass(frozen=True)
class Answer:
    """Tokens, the end of the response included, and the log-probability of each under the sampled distribution."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class AdapterUnknown(Exception):
    """The engine does not have the adapter (any more): it was started anew."""


class Engine(ABC):
    """Holds the base, and any number of adapters by name."""

    version: str
    where: str  # as users know it, for messages

    @abstractmethod
    def load(self, name: str, folder: Path) -> None:
        """Reads an adapter. Raises UserError where it cannot."""

    @abstractmethod
    def unload(self, name: str) -> None:
        """Lets an adapter go; one that is not there is no error."""

    @abstractmethod
    def sample(self, adapter: str, questions: Sequence[Question]) -> list[Answer]:
        """A response to each question, with the same tokens for the same seed where the engine is repeatable.

        Raises AdapterUnknown, or UserError where it gives no answer."""


def check_version(version: str, where: str) -> None:
    """Raises UserError for a version that is older than what is spoken here."""
    digits = version.split("+")[0].split(".")[:2]
    found = tuple(int(part) for part in digits if part.isdecimal())
    if len(found) < 2 or found < LEAST:
        raise UserError(
            f"{where} is version {version} of vLLM, and model.sampler=vllm needs {'.'.join(map(str, LEAST))} or later: install that."
        )
