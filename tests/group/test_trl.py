"""The losses and their gradients against TRL's own code on the same log-probabilities, ratios on both sides of every bound.

TRL's method is called unbound, on a namespace of the attributes that it reads, with a stub in place of the model."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alignbench_group.config import CISPOConfig, DAPOConfig, GRPOConfig, GSPOConfig, RelativeConfig, SAPOConfig
from alignbench_group.groups import Experience, GroupOptimizer
from alignbench_group.grpo import DAPO, GRPO, overlong
from alignbench_group.relative import RelativeOptimizer
from alignbench_group.sequence import GSPO
from alignbench_group.soft import CISPO, SAPO
from torch import Tensor
from trl.rewards import get_soft_overlong_punishment
from trl.trainer.grpo_trainer import GRPOTrainer

from alignbench import Sequences

LENGTHS = torch.tensor([5, 1, 3, 2, 5, 4])
ROWS, TOKENS = len(LENGTHS), int(LENGTHS.max())
MASK = torch.arange(TOKENS)[None] < LENGTHS[:, None]


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def experience() -> Experience:
    """Before the first step; a policy 0.3 nats a token away from it is `logprobs`."""
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.long)
    old = -random(ROWS, TOKENS, seed=1).abs() * MASK
    reference = (old + random(ROWS, TOKENS, seed=2, scale=0.4)) * MASK
    sequences = Sequences(ids[:, :1], MASK[:, :1], ids, MASK)
    counted = torch.ones(ROWS, dtype=torch.bool)
    return Experience(sequences, old, reference, random(ROWS, seed=3), torch.ones_like(old), counted)


def logprobs() -> Tensor:
    return ((experience().logprobs + random(ROWS, TOKENS, seed=4, scale=0.3)) * MASK).requires_grad_()


def ours(kind: type[GroupOptimizer], config: RelativeConfig, new: Tensor) -> Tensor:
    algorithm = kind.__new__(kind)
    algorithm._config = config
    part = experience()
    return algorithm._loss(new, part).total / algorithm._divisor(part, torch.arange(ROWS))


class OneProcess:
    """What TRL asks of accelerate."""

    num_processes, sync_gradients = 1, True

    def gather(self, value: Tensor) -> Tensor:
        return value

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        return value


def theirs(new: Tensor, beta: float, **changes: Any) -> Tensor:
    part = experience()
    shared = {
        "_get_per_token_logps_and_entropies": lambda *_, **__: (new, torch.zeros_like(new), None),
        "accelerator": OneProcess(),
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": beta,
        "args": SimpleNamespace(
            use_bias_correction_kl=False,
            delta=None,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
        ),
        "model": SimpleNamespace(training=True),
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": TOKENS,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "_entropy_bonus_enabled": False,
        "_metrics": {"train": defaultdict(list)},
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
    }
    ids = part.sequences.response_ids
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": MASK[:, :1].long(),
        "completion_ids": ids,
        "completion_mask": MASK.long(),
        "advantages": part.advantages,
        "old_per_token_logps": part.logprobs,
        "ref_per_token_logps": part.ref_logprobs,
        "num_items_in_batch": MASK.sum(),
    }
    loss: Tensor = GRPOTrainer._compute_loss(SimpleNamespace(**shared | changes), None, inputs)
    return loss


CASES: dict[str, tuple[type[RelativeOptimizer], type[RelativeConfig], dict[str, Any], dict[str, Any]]] = {
    "grpo": (GRPO, GRPOConfig, {}, {"loss_type": "grpo"}),
    "clip-higher": (GRPO, GRPOConfig, {"clip_ratio_high": 0.4}, {"loss_type": "grpo", "epsilon_high": 0.4}),
    "dapo": (DAPO, DAPOConfig, {}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "token mean": (GRPO, GRPOConfig, {"length_normalisation": "token"}, {"loss_type": "bnpo"}),
    "cispo": (CISPO, CISPOConfig, {"ratio_limit": 1.1}, {"loss_type": "cispo", "epsilon_high": 1.1}),
    "sapo": (SAPO, SAPOConfig, {}, {"loss_type": "sapo"}),
    "gspo": (
        GSPO,
        GSPOConfig,
        {"clip_ratio": 0.1, "clip_ratio_high": 0.05},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.05},
    ),
}


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_trl(case: str, kl_coef: float) -> None:
    kind, schema, mine, other = CASES[case]
    left, right = logprobs(), logprobs()
    found = ours(kind, schema(kl_coef=kl_coef, **mine), left)
    expected = theirs(right, kl_coef, **other)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    assert left.grad is not None and float(left.grad.abs().max()) > 1e-3
    torch.testing.assert_close(left.grad, right.grad)


def test_dr_grpo_is_trls_up_to_its_constant() -> None:
    """TRL divides by the longest length that is possible, of 5 tokens here."""
    left, right = logprobs(), logprobs()
    found = ours(GRPO, GRPOConfig(kl_coef=0.3, scale_by_std=False, length_normalisation="none"), left)
    torch.testing.assert_close(found / TOKENS, theirs(right, 0.3, loss_type="dr_grpo"))


def test_ratios_beyond_both_bounds_are_seen() -> None:
    ratio = (logprobs().detach() - experience().logprobs).exp()[MASK]
    assert float(ratio.min()) < 0.75 and float(ratio.max()) > 1.45


@pytest.mark.parametrize("buffer", [2, 5, 10])
def test_overlong_punishment_is_that_of_trl(buffer: int) -> None:
    longest, lengths = 10, list(range(1, 11))
    expected = get_soft_overlong_punishment(longest, buffer)([[1] * length for length in lengths])
    config = DAPOConfig(overlong_buffer=buffer / longest)
    assert (-overlong(torch.tensor(lengths).double(), longest, config)).tolist() == pytest.approx(expected)
