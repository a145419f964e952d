"""The losses and their gradients against TRL's own code on the same log-probabilities.

TRL's methods are called unbound, on a namespace of the attributes that they read, with a stub in place of the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from alignbench_dpo import losses
from alignbench_dpo.aot import of_equal_rank, sides_of_equal_rank
from torch import Tensor
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from alignbench import PreferenceBatch, Sequences

PAIRS, TOKENS, VOCABULARY = 5, 4, 7
LENGTHS = torch.tensor([4, 1, 3, 2, 4, 2, 4, 1, 3, 4])  # chosen, then rejected
MASK = torch.arange(TOKENS)[None] < LENGTHS[:, None]
BETA = 0.3


class OneProcess:
    """What TRL asks of accelerate."""

    device = torch.device("cpu")

    def gather(self, value: Tensor) -> Tensor:
        return value

    gather_for_metrics = gather


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def token_logprobs() -> Tensor:
    """[chosen then rejected, tokens], 0 outside the response, as TRL's models return them."""
    return (-random(2 * PAIRS, TOKENS, scale=2.0).abs() * MASK).requires_grad_()


def reference() -> Tensor:
    return -random(2 * PAIRS, seed=1, scale=3.0).abs()


def outputs(logprobs: Tensor) -> SimpleNamespace:
    zeros = torch.zeros_like(logprobs)
    return SimpleNamespace(log_probs=logprobs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def inputs() -> dict[str, Tensor]:
    """One prompt token, then the response."""
    ids = torch.ones(2 * PAIRS, TOKENS + 1, dtype=torch.long)
    mask = torch.cat([torch.zeros(2 * PAIRS, 1), MASK], 1).long()
    return {"input_ids": ids, "attention_mask": ids, "completion_mask": mask}


def trainer(**changes: object) -> SimpleNamespace:
    shared = {
        "model": SimpleNamespace(training=True),
        "accelerator": OneProcess(),
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "beta": BETA,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**shared | changes)


def trl_dpo(logprobs: Tensor, loss_type: str, label_smoothing: float = 0.0) -> Tensor:
    stub = trainer(
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        label_smoothing=label_smoothing,
        use_weighting=False,
    )
    ref = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference().chunk(2), strict=True))
    loss: Tensor = DPOTrainer._compute_loss(stub, lambda **_: outputs(logprobs), inputs() | ref, False)
    return loss


def margin(logprobs: Tensor) -> Tensor:
    chosen, rejected = (logprobs.sum(1) - reference()).chunk(2)
    return chosen - rejected


def same(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], leaf: Callable[[], Tensor]) -> None:
    """Equal values, equal gradients with respect to `leaf`, and gradients that are there."""
    mine, other = leaf(), leaf()
    left, right = ours(mine), theirs(other)
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)
    left.backward()
    right.backward()
    assert mine.grad is not None and float(mine.grad.abs().max()) > 1e-3
    torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("loss", "rate"), [("sigmoid", 0.0), ("hinge", 0.0), ("robust", 0.0), ("robust", 0.2)])
def test_dpo(loss: str, rate: float) -> None:
    def ours(logprobs: Tensor) -> Tensor:
        return losses.dpo_loss(margin(logprobs), BETA, loss=loss, label_smoothing=rate).mean()

    # Outside the response our policies give no log-probability at all, and TRL's sum passes their gradient on.
    same(lambda x: ours(x * MASK), lambda x: trl_dpo(x * MASK, loss, rate), token_logprobs)


OURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "apo_zero": lambda won, lost: losses.apo_loss(won, lost, BETA, "zero"),
    "apo_down": lambda won, lost: losses.apo_loss(won, lost, BETA, "down"),
    "exo_pair": lambda won, lost: losses.exo_loss(won - lost, BETA, 1 - 0.1),
    "sppo_hard": lambda won, lost: losses.sppo_loss(won, lost, BETA),
    "sigmoid_norm": lambda won, lost: losses.sigmoid_loss(won / LENGTHS[:PAIRS] - lost / LENGTHS[PAIRS:], BETA),
    # TRL leaves the shift out; of its loss of a pair ours are the two halves.
    "bco_pair": lambda won, lost: sum(
        losses.bco_loss(ratio, torch.tensor(good), torch.tensor(0.0), BETA)
        for ratio, good in ((won, True), (lost, False))
    ),
}


@pytest.mark.parametrize("loss", OURS)
def test_what_weighs_the_two_sides(loss: str) -> None:
    def ours(logprobs: Tensor) -> Tensor:
        return OURS[loss](*((logprobs * MASK).sum(1) - reference()).chunk(2)).mean()

    same(ours, lambda x: trl_dpo(x * MASK, loss, 0.1), token_logprobs)


def aot(logprobs: Tensor, form: str) -> Tensor:
    """The pairs that are made of the batch, as the update makes them; TRL's `aot` is the paired form."""
    won, lost = (logprobs * MASK).sum(1).chunk(2)
    ref = reference().chunk(2)
    empty = torch.zeros(PAIRS, 1, dtype=torch.long)
    shown = Sequences(empty, empty, torch.arange(PAIRS)[:, None], torch.ones_like(empty))
    batch = PreferenceBatch(shown, shown, None, *ref)
    with torch.no_grad():
        if form == "paired":
            made = of_equal_rank(batch, won - lost)
        else:
            made = sides_of_equal_rank(batch, won - ref[0], lost - ref[1])
    assert made.ref_chosen is not None and made.ref_rejected is not None
    rows = [side.response_ids.squeeze(1) for side in (made.chosen, made.rejected)]
    gap = (won[rows[0]] - made.ref_chosen) - (lost[rows[1]] - made.ref_rejected)
    return losses.dpo_loss(gap, BETA, loss="sigmoid").mean()


@pytest.mark.parametrize(("form", "theirs"), [("paired", "aot"), ("unpaired", "aot_unpaired")])
def test_aot(form: str, theirs: str) -> None:
    same(lambda x: aot(x, form), lambda x: trl_dpo(x * MASK, theirs), token_logprobs)


def test_cpo() -> None:
    """Without its imitation, which TRL takes over all tokens of a batch, prompts included, as ORPO's below."""

    def theirs(logprobs: Tensor) -> Tensor:
        sums = (logprobs * MASK).sum(1).chunk(2)
        loss: Tensor = CPOTrainer.cpo_loss(cpo("sigmoid"), *sums)[0]
        return loss.mean()

    def ours(logprobs: Tensor) -> Tensor:
        won, lost = (logprobs * MASK).sum(1).chunk(2)
        return losses.sigmoid_loss(won - lost, BETA).mean()

    same(ours, theirs, token_logprobs)


def test_ipo_on_mean_logprobs() -> None:
    """TRL divides each log-ratio by its tokens before the squared loss; ours, as the paper writes it, takes sums. The
    loss is one and the same function of the margin: given TRL's margin it gives TRL's figures."""

    def ours(logprobs: Tensor) -> Tensor:
        chosen, rejected = ((logprobs.sum(1) - reference()) / LENGTHS).chunk(2)
        return losses.ipo_loss(chosen - rejected, BETA).mean()

    same(lambda x: ours(x * MASK), lambda x: trl_dpo(x * MASK, "ipo"), token_logprobs)


def cpo(loss_type: str, **changes: object) -> SimpleNamespace:
    settings = {"alpha": 0.0, "label_smoothing": 0.0, "loss_type": loss_type} | changes
    return trainer(**settings)


def test_conservative_dpo() -> None:
    """TRL's DPO trainer has no label smoothing for the sigmoid; its CPO trainer has, and takes any log-probabilities:
    here log-ratios to the reference."""

    def theirs(logprobs: Tensor) -> Tensor:
        ratios = ((logprobs * MASK).sum(1) - reference()).chunk(2)
        loss: Tensor = CPOTrainer.cpo_loss(cpo("sigmoid", label_smoothing=0.1), *ratios)[0]
        return loss.mean()

    def ours(logprobs: Tensor) -> Tensor:
        return losses.dpo_loss(margin(logprobs * MASK), BETA, loss="sigmoid", label_smoothing=0.1).mean()

    same(ours, theirs, token_logprobs)


# Losses on mean log-probabilities: TRL makes them from logits


IDS = torch.randint(0, VOCABULARY, (2 * PAIRS, TOKENS + 1), generator=torch.Generator().manual_seed(3))


def logits() -> Tensor:
    return random(2 * PAIRS, TOKENS + 1, VOCABULARY, seed=4).requires_grad_()


def labels(mask: Tensor) -> Tensor:
    return torch.cat([torch.full((2 * PAIRS, 1), -100), IDS[:, 1:].masked_fill(~mask, -100)], 1)


def mean_logprobs(given: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Of chosen and rejected, from the log-softmax of the logits before each response token."""
    scores = torch.log_softmax(given[:, :-1], -1).gather(-1, IDS[:, 1:, None]).squeeze(-1)
    chosen, rejected = ((scores * mask).sum(1) / mask.sum(1)).chunk(2)
    return chosen, rejected


def test_simpo() -> None:
    def theirs(given: Tensor) -> Tensor:
        means = CPOTrainer.get_batch_logps(given, labels(MASK), average_log_prob=True).chunk(2)
        loss: Tensor = CPOTrainer.cpo_loss(cpo("simpo", beta=2.0, simpo_gamma=0.7), *means)[0]
        return loss.mean()

    same(lambda x: losses.simpo_loss(*mean_logprobs(x, MASK), 2.0, 0.7).mean(), theirs, logits)


def orpo_trainer(beta: float) -> SimpleNamespace:
    stub = trainer(beta=beta, is_encoder_decoder=False, padding_value=0)
    stub.get_batch_logps, stub.concatenated_inputs = ORPOTrainer.get_batch_logps, ORPOTrainer.concatenated_inputs
    stub.odds_ratio_loss = lambda *given: ORPOTrainer.odds_ratio_loss(stub, *given)
    stub.concatenated_forward = lambda *given: ORPOTrainer.concatenated_forward(stub, *given)
    return stub


def test_orpo() -> None:
    """The whole loss, SFT term included. TRL's SFT term is the mean over all tokens of prompt and response, ours, as in
    the paper, the mean over responses of a response's mean; with one prompt token, which nothing predicts, and chosen
    responses of one length the two are equal."""
    mask = MASK.clone()
    mask[:PAIRS] = True

    def theirs(given: Tensor) -> Tensor:
        batch = {}
        attention = torch.cat([torch.ones(2 * PAIRS, 1, dtype=torch.bool), mask], 1).long()
        for name, part in (("input_ids", IDS), ("attention_mask", attention), ("labels", labels(mask))):
            batch |= dict(zip((f"chosen_{name}", f"rejected_{name}"), part.chunk(2), strict=True))
        loss: Tensor = ORPOTrainer.get_batch_loss_metrics(
            orpo_trainer(0.25), lambda *_, **__: SimpleNamespace(logits=given), batch
        )[0]
        return loss

    same(lambda x: losses.orpo_loss(*mean_logprobs(x, mask), 0.25).mean(), theirs, logits)


@pytest.mark.parametrize("shift", [2.0, -2.0], ids=["above", "clamped"])
def test_kto(shift: float) -> None:
    mismatched, ref_mismatched = random(2 * PAIRS, seed=5) + shift, random(2 * PAIRS, seed=6, scale=0.1)

    def theirs(logprobs: Tensor) -> Tensor:
        stub = trainer(
            calculate_KL=True,
            loss_type="kto",
            desirable_weight=1.5,
            undesirable_weight=0.7,
            _compute_kl_logps=lambda model, batch: mismatched,
        )
        known = {
            "label": torch.arange(2 * PAIRS) < PAIRS,
            "ref_logps": reference(),
            "ref_KL_logps": ref_mismatched,
        }
        loss: Tensor = KTOTrainer._compute_loss(stub, lambda **_: outputs(logprobs), inputs() | known, False)
        assert (stub._metrics["train"]["kl"] == [0.0]) == (shift < 0)
        return loss

    def ours(logprobs: Tensor) -> Tensor:
        z0 = (mismatched - ref_mismatched).mean().clamp(min=0)
        good = torch.arange(2 * PAIRS) < PAIRS
        return losses.kto_loss(logprobs.sum(1) - reference(), good, z0, BETA, 1.5, 0.7).mean()

    same(lambda x: ours(x * MASK), lambda x: theirs(x * MASK), token_logprobs)
