"""Stages and a layout of rows of somebody else's, for tests: `harness.Plugin` registers them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from alignbench import (
    REFERENCE,
    Demonstration,
    Format,
    Labelled,
    Message,
    Prompt,
    Ranking,
    Sampling,
    Seeds,
    Split,
    Stage,
    StagePlace,
    StageResult,
    StageView,
    UserError,
)

CALLS: list[str] = []
"""Which stages were carried out, and not read back."""


@dataclass
class EarlyConfig:
    """Looks at what there is before SFT."""

    place: ClassVar[StagePlace] = StagePlace.BEFORE_SFT

    keep: int = 0
    """Demonstrations that it leaves, the first ones; 0: it says nothing of them."""
    fault: str = ""
    """raise, refuse, mapping, nan, nothing or leak: how it breaks its contract."""


@dataclass
class MiddleConfig(EarlyConfig):
    """Looks at what there is after the reward."""

    place: ClassVar[StagePlace] = StagePlace.AFTER_REWARD


@dataclass
class LateConfig(EarlyConfig):
    """Looks at what there is after the algorithm."""

    place: ClassVar[StagePlace] = StagePlace.AFTER_ALGORITHM


class Look(Stage):
    """Writes down what it saw."""

    def __init__(self, config: EarlyConfig, *, seeds: Seeds) -> None:
        self.config, self.seeds = config, seeds

    def run(self, view: StageView) -> StageResult:
        CALLS.append(self.config.place.value)
        match self.config.fault:
            case "raise":
                raise KeyError("of theirs")
            case "refuse":
                raise UserError("the moon is full.")
            case "mapping":
                return {"share": 1.0}  # type: ignore[return-value]
            case "nan":
                return StageResult({"share": float("nan")})
            case "nothing":
                return StageResult(demonstrations=())
            case "leak":
                (asked, *_) = view.data.prompts(Split.EVALUATION)
                return StageResult(demonstrations=(Demonstration(asked, "yes"),))
        rollout = view.policy.generate(view.prompts[:4], Sampling(), rng=self.seeds.torch("sampling"))
        samples = rollout.samples
        logprobs = view.policy.logprobs(samples.sequences).logprobs
        saw = {
            "prompts": len(view.prompts),
            "demonstrations": len(view.demonstrations),
            "rankings": len(view.rankings),
            "held_out": len(view.held_out),
            "scores": view.score is not None and list(view.score(samples).shape) == [4],
            "gradients": logprobs.requires_grad,
            "logprob": float(logprobs.sum()),
        }
        if self.config.place is not StagePlace.BEFORE_SFT:
            saw["moved"] = bool((logprobs != view.policy.logprobs(samples.sequences, role=REFERENCE).logprobs).any())
        (view.folder / "saw.json").write_text(json.dumps(saw))
        kept = tuple(view.demonstrations[: self.config.keep]) if self.config.keep else None
        return StageResult({"prompts": len(view.prompts)}, "looked", kept)


@dataclass
class DashesConfig:
    """A question and its answers in one text, with a mark between any two."""

    mark: str = " -- "
    """What stands between them."""
    gives: str = "rankings"
    """rankings, labels, prompts, demonstrations, or text, which is no record."""


class Dashes(Format):
    """The best answer comes first. Ranks begin at 1, and prompts bring no id."""

    def __init__(self, config: DashesConfig) -> None:
        self.config = config

    def read(self, row: Mapping[str, Any]) -> Sequence[Any]:
        asked, *answers = row["line"].split(self.config.mark)
        prompt = Prompt("", (Message("user", asked),))
        if asked == "skip":
            return ()
        if asked == "broken":
            raise UserError("it is broken")
        match self.config.gives:
            case "labels":
                return [Labelled(prompt, answer, good=i == 0) for i, answer in enumerate(answers)]
            case "prompts":
                return [prompt]
            case "demonstrations":
                return [Demonstration(prompt, answers[0])]
            case "text":
                return [asked]
        return [Ranking(prompt, answers, range(1, len(answers) + 1))]  # type: ignore[arg-type]
