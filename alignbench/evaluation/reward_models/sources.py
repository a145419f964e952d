"""What a reward source is measured with where it is none of the registered ones, and where no model is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from alignbench import functional
from alignbench.contracts import Policy, RewardSource
from alignbench.errors import UserError
from alignbench.optimizer_config import ImplicitReward
from alignbench.records import POLICY, REFERENCE, Prompt, Rollout, Samples, Sampling, Sequences, TokenScores


class PolicyReward(RewardSource):
    """What a trained policy takes a response to be worth, as its algorithm says, times beta where the algorithm has one:
    log pi(y|x) - log pi_ref(y|x), nats summed over the response, the reward of which the policy is the optimum (Rafailov et al., arXiv
    2305.18290, equation 5; what depends on the prompt alone is left out); or the mean of a token, or without a reference, as in the mean
    log-probability of SimPO (Meng et al., arXiv 2405.14734, equation 3)."""

    def __init__(self, policy: Policy, implicit: ImplicitReward) -> None:
        self._policy, self._implicit = policy, implicit
        self._beta = 1.0 if implicit.beta is None else implicit.beta

    def score(self, samples: Samples) -> Tensor:
        with torch.no_grad():
            return (self._beta * self._worth(samples.sequences)).float()

    def _worth(self, sequences: Sequences) -> Tensor:
        worth = functional.summed_logprobs(self._policy, sequences, role=POLICY)
        if self._implicit.uses_reference:
            worth = worth - functional.summed_logprobs(self._policy, sequences, role=REFERENCE)
        return worth / sequences.response_mask.sum(1).clamp(min=1) if self._implicit.per_token else worth


class TextsAlone(Policy):
    """Stands for a policy where a source reads nothing but texts: it hands them on, whole, a word a token. Whoever asks it for more than
    that is told that a model is needed."""

    max_prompt_tokens = max_response_tokens = 2**31

    def __init__(self, device: torch.device) -> None:
        self.device, self.pretrained = device, True

    def encode(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Sequence[bool] | None = None
    ) -> Samples:
        ended = torch.tensor([True] * len(responses) if finished is None else list(finished), device=self.device)
        lengths = torch.tensor([len(text.split()) for text in responses], device=self.device) + ended
        mask = torch.arange(int(lengths.max()), device=self.device)[None] < lengths[:, None]
        asked = torch.ones(len(prompts), 1, dtype=torch.bool, device=self.device)
        sequences = Sequences(asked.long(), asked, mask.long(), mask)
        return Samples(tuple(prompts), tuple(responses), sequences, ended)

    def prompt_tokens(self, prompt: Prompt) -> int:
        return sum(len(message.content.split()) for message in prompt.messages)

    def _no_model(self, *_: object, **__: object) -> NoReturn:
        raise UserError("This reward source needs a model, and none was chosen: add model=<name>.")

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, n: int = 1, role: str = POLICY, rng: torch.Generator
    ) -> Rollout:
        self._no_model()

    def logprobs(self, sequences: Sequences, **_: Any) -> TokenScores:
        self._no_model()

    def scalar(self, name: str, *, init_from: str = POLICY) -> NoReturn:
        self._no_model()

    def save(self, directory: Path) -> Path:
        self._no_model()

    def load(self, path: Path) -> None:
        self._no_model()

    def freeze_reference(self) -> None: ...

    def scalars(self) -> tuple[str, ...]:
        return ()

    def trainable(self) -> list[torch.nn.Parameter]:
        return []
