"""Reward sources that nothing is fitted for: the truth, and length alone."""

from __future__ import annotations

import torch
from torch import Tensor

from alignbench import DataSource, Policy, Prompt, RewardSource, Samples, Seeds, Split, UserError
from alignbench_rewards.config import GoldConfig, LengthConfig

UNKNOWN = (
    "reward=gold needs data that knows the truth about every response, as data=world does, and this data does not: choose "
    "reward=learned."
)


class GoldReward(RewardSource):
    """The gold reward of the data source's verdict."""

    known = "alignbench_rewards.known:gold"

    def __init__(self, config: GoldConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self._data = data

    @classmethod
    def check_data(cls, config: GoldConfig, data: DataSource) -> None:
        for prompt in data.prompts(Split.TRAIN)[:1]:
            if data.judge(prompt, "", finished=True) is None:
                raise UserError(UNKNOWN)

    def score(self, samples: Samples) -> Tensor:
        rows = zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True)
        scores = [self._verdict(prompt, text, finished) for prompt, text, finished in rows]
        return torch.tensor(scores, dtype=torch.float32, device=samples.finished.device)

    def _verdict(self, prompt: Prompt, text: str, finished: bool) -> float:
        verdict = self._data.judge(prompt, text, finished=finished)
        if verdict is None:
            raise UserError(UNKNOWN)
        return verdict.gold_reward


class LengthReward(RewardSource):
    """`scale` times the tokens of the response. Much of what reward models reward is length (Singhal et al., arXiv
    2310.03716): what an algorithm gains on this reward is what it gains by that alone."""

    known = "alignbench_rewards.known:length"

    def __init__(self, config: LengthConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self._scale = config.scale

    def score(self, samples: Samples) -> Tensor:
        return self._scale * samples.sequences.response_mask.sum(1).float()
