"""The contracts of what a run learns from: data sources, and annotators who rank responses. See `contracts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from alignbench.records import Demonstration, Description, Labelled, Prompt, Ranking, Split, UtilityTerm, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class DataSource(ABC):
    """Demonstrations, prompts, rankings and, where the truth is known, a gold reward. Built with: seeds.

    Whatever it does not have stays empty; the core refuses a run that needs it before a model is loaded.
    """

    known: ClassVar[str] = ""
    """As RewardSource.known."""

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """A tokenizer for models built from scratch; None where the data is ordinary text."""
        return None

    def lessons(self) -> Sequence[Demonstration]:
        """What a model without pretraining learns first: knowledge that a real base model brings along."""
        return ()

    def demonstrations(self) -> Sequence[Demonstration]:
        """Responses that SFT imitates; none to an EVALUATION prompt."""
        return ()

    @abstractmethod
    def prompts(self, split: Split) -> Sequence[Prompt]:
        """TRAIN and EVALUATION prompts never overlap."""

    def rankings(self) -> Sequence[Ranking]:
        """Recorded human rankings, for an annotator that brings no judgement of its own."""
        return ()

    def labelled(self) -> Sequence[Labelled]:
        """Recorded responses called good or bad, for an algorithm that learns from such labels."""
        return ()

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        """The truth about one response; None where it is not known. Must give None for all prompts or for none."""
        return None

    def counts(self) -> Mapping[str, int]:
        """Rows read, kept and set aside by reason: printed, and kept in result.json."""
        return {}

    def description(self) -> Description | None:
        """How it understood the files that it read; None where it read none."""
        return None


class Annotator(ABC):  # noqa: B024 (which method it needs depends on samples_responses)
    """Ranks K responses to a prompt. Built with: data, seeds."""

    known: ClassVar[str] = ""
    """As RewardSource.known."""

    samples_responses: ClassVar[bool] = True  # False: it brings rankings of its own and nothing is sampled

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        """The rank of each response, 0 is best, equal ranks are ties. Random choices come from the seeds it was built with."""
        raise NotImplementedError

    def rank_all(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], *, finished: Sequence[Sequence[bool]]
    ) -> list[tuple[int, ...]]:
        """`rank` of many prompts, for whoever can ask about several at once."""
        rows = zip(prompts, responses, finished, strict=True)
        return [self.rank(prompt, texts, finished=ends) for prompt, texts, ends in rows]

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float | None:
        """The probability that this annotator prefers `first`, where it is known: gives reward models their ceiling."""
        return None

    @property
    def knows_probabilities(self) -> bool:
        """Whether `preference` says more than None. Where it does not, an algorithm that learns from probabilities is refused before
        anything is trained."""
        return type(self).preference is not Annotator.preference

    def utility_terms(self) -> Sequence[UtilityTerm]:
        """Of an annotator whose utility is a weighted sum of named features: its terms, so that people can move the weights and
        see what would be learnt. Empty where it is not."""
        return ()

    def features(self, prompt: Prompt, response: str, *, finished: bool) -> Sequence[float]:
        """The features of `utility_terms`, in their order, of one response."""
        return ()

    def recorded(self) -> Sequence[Ranking]:
        """The rankings of an annotator with `samples_responses = False`."""
        return ()

    def fingerprint(self) -> str:
        """As RewardSource.fingerprint, of its rankings."""
        return ""

    def report(self) -> Mapping[str, float]:
        """As RewardSource.report, of its rankings."""
        return {}
