"""A reward that a few lines can define: does the response contain the word?"""

from __future__ import annotations

import re

import torch

from alignbench import DataSource, Policy, RewardSource, Samples, Seeds, UserError
from alignbench_example.config import KeywordConfig


class KeywordReward(RewardSource):
    """1 for a response that contains `config.word`, else 0."""

    def __init__(self, config: KeywordConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        if not config.word.strip():
            raise UserError("reward.word is empty: give the word that responses should contain, e.g. reward.word=yes.")
        self.pattern = re.compile(rf"(?<!\w){re.escape(config.word.strip())}(?!\w)", re.IGNORECASE)

    def score(self, samples: Samples) -> torch.Tensor:
        hits = [float(bool(self.pattern.search(text))) for text in samples.texts]
        return torch.tensor(hits, dtype=torch.float32, device=samples.sequences.response_ids.device)
