from __future__ import annotations
import torch
from alignbench import RewardSource


class GoldReward(RewardSource):
    def __init__(self, config, *, policy, data, seeds):
        self._data = data

    def score(self, samples):
        v = [
            self._data.judge(p, t, finished=e).gold_reward
            for p, t, e in zip(samples.prompts, samples.texts, samples.finished.tolist())
        ]
        return torch.tensor(v)
