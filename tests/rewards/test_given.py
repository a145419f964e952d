"""The rewards that nothing is fitted for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from alignbench_rewards.config import GoldConfig, LengthConfig
from alignbench_rewards.given import GoldReward, LengthReward

from alignbench import DataSource, Prompt, Seeds, Split, UserError, Verdict
from tests import tiny


class Truth(DataSource):
    """Of each response: its letters, less 10 where it was cut off; 100 more for the prompt `a`."""

    known = True

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return tiny.PROMPTS

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        gold = len(response.split()) - 10.0 * (not finished) + 100 * (prompt.id == "a")
        return Verdict(gold) if self.known else None


class Untold(Truth):
    known = False


def test_gold_is_the_verdict_of_the_data() -> None:
    policy = tiny.scratch()
    samples = policy.encode([tiny.PROMPTS[0], *tiny.PROMPTS[1:3]], ["a b", "c", "d e f"], finished=[True, True, False])
    scores = GoldReward(GoldConfig(), policy=policy, data=Truth(), seeds=Seeds(0)).score(samples)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [102.0, 1.0, -7.0]


def test_gold_refuses_data_without_truth() -> None:
    GoldReward.check_data(GoldConfig(), Truth())
    with pytest.raises(UserError, match="needs data that knows the truth about every response, as data=world"):
        GoldReward.check_data(GoldConfig(), Untold())


@pytest.mark.parametrize("scale", [0.1, -2.0])
def test_length_counts_tokens_with_eos(scale: float) -> None:
    policy = tiny.scratch()
    samples = policy.encode(tiny.PROMPTS[:3], ["a b", "", "a b c d e f g h"])
    scores = LengthReward(LengthConfig(scale=scale), policy=policy, data=Untold(), seeds=Seeds(0)).score(samples)
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([3 * scale, 1 * scale, 6 * scale])
