"""A Python function of the user's as reward."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench import DataSource, NonFiniteError, Policy, Prompt, RewardSource, Samples, Seeds, UserError
from alignbench_rewards.config import FunctionConfig


class FunctionReward(RewardSource):
    """Whatever `config.target` returns. It is given texts, never tokens."""

    known = "alignbench_rewards.known:function"

    def __init__(self, config: FunctionConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self._function, self._config = imported(config.target), config
        self._name = f"reward.target={config.target}"

    @classmethod
    def check_data(cls, config: FunctionConfig, data: DataSource) -> None:
        imported(config.target)

    def fingerprint(self) -> str:
        """The text of the function's file: edited, it is another reward. What that file imports is not seen."""
        try:
            return hashlib.sha256(Path(inspect.getfile(inspect.unwrap(self._function))).read_bytes()).hexdigest()
        except (TypeError, OSError):  # built in, or compiled: its version stands in the run's record
            return ""

    def score(self, samples: Samples) -> Tensor:
        prompts, texts = [self._given(prompt) for prompt in samples.prompts], list(samples.texts)
        if self._config.batch:
            scores = self._called(prompts, texts)
            try:
                scores = [float(score) for score in scores]
            except (TypeError, ValueError):
                raise UserError(f"{self._name} must return a list of numbers, not {_shown(scores)}.") from None
            if len(scores) != len(samples):
                raise UserError(f"{self._name} returned {len(scores)} scores for {len(samples)} responses.")
        else:
            scores = [self._single(*row) for row in zip(prompts, texts, strict=True)]
        found = torch.tensor(scores, dtype=torch.float32, device=samples.finished.device)
        if not bool((good := torch.isfinite(found)).all()):
            row = int((~good).nonzero()[0])
            raise NonFiniteError(
                f"{self._name} returned {scores[row]} for a response to prompt {samples.prompts[row].id!r}."
            )
        return found

    def _given(self, prompt: Prompt) -> Any:
        if self._config.prompt == "messages":
            return [{"role": message.role, "content": message.content} for message in prompt.messages]
        return prompt if self._config.prompt == "record" else prompt.text

    def _single(self, prompt: Any, response: str) -> float:
        score = self._called(prompt, response)
        try:
            return float(score)
        except (TypeError, ValueError):
            raise UserError(f"{self._name} must return one number, not {_shown(score)}.") from None

    def _called(self, prompt: Any, response: str | Sequence[str]) -> Any:
        try:
            return self._function(prompt, response)
        except Exception as error:  # it may fail in any way
            told = " ".join(str(error).split()) or "no message"
            raise UserError(f"{self._name} raised {type(error).__name__}: {told}.") from error


def imported(target: str) -> Callable[..., Any]:
    """The function behind package.module:function."""
    module, _, name = target.partition(":")
    if not module or not name:
        raise UserError(f"reward.target={target!r} names no function: write reward.target=package.module:function.")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module may fail in any way when it is imported
        told = " ".join(str(error).split())
        raise UserError(
            f"reward.target={target} cannot be imported ({told or 'its module fails'}): check its spelling, and that "
            "PYTHONPATH holds the folder it is in."
        ) from error
    if not callable(found):
        raise UserError(f"reward.target={target} is {_shown(found)}, not a function.")
    return found  # type: ignore[no-any-return]


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def ready(config: FunctionConfig) -> None:
    """As `ready` of any component's config."""
    imported(config.target)
