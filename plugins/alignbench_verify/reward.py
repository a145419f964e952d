"""Right or wrong by a reference, as a reward: what no reward model has to be fitted for (RLVR, arXiv 2411.15124)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alignbench import DataSource, Policy, RewardSource, Samples, Seeds
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
        rows = zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True)
        passed = self._verifier.passed([Answer(*row) for row in rows])
        scores = [sum(self._weights[name] for name, right in checks.items() if right) for checks in passed]
        return torch.tensor(scores, dtype=torch.float32, device=samples.finished.device)
