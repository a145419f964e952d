"""Right or wrong by a reference, as a reward: what no reward model has to be fitted for (RLVR, arXiv 2411.15124)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alignbench import DataSource, Policy, RewardParts, RewardSource, Samples, Seeds
from alignbench_verify.config import VerifyConfig
from alignbench_verify.verifier import Answer, Verifier

WHERE = "reward=verify"


class VerifyReward(RewardSource):
    """The sum of the weights of the checks that a response passes."""

    known = "alignbench_verify.known:verify"

    def __init__(self, config: VerifyConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self._weights = config.weights
        self._verifier = Verifier(config, list(config.weights), where=WHERE)

    @classmethod
    def check_data(cls, config: VerifyConfig, data: DataSource) -> None:
        Verifier(config, list(config.weights), where=WHERE).check_data(data)

    def fingerprint(self) -> str:
        return self._verifier.fingerprint()

    def report(self) -> Mapping[str, float]:
        """Responses checked, those that were cut off, and those whose check took too much and was ended."""
        return self._verifier.report()

    def score(self, samples: Samples) -> Tensor:
        return self.score_parts(samples).total()

    def score_parts(self, samples: Samples) -> RewardParts:
        """One part for each check; 0 also where a row holds nothing for it."""
        rows = zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True)
        passed = self._verifier.passed([Answer(*row) for row in rows])
        values = [[float(checks.get(name, False)) for name in self._weights] for checks in passed]
        found = torch.tensor(values, dtype=torch.float32, device=samples.finished.device)
        return RewardParts(tuple(self._weights), tuple(self._weights.values()), found.reshape(len(samples), -1))
