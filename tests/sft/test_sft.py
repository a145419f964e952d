"""SFT against cross-entropy by hand."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_sft.config import SFTConfig
from alignbench_sft.sft import SFT

from alignbench import DemonstrationBatch, NonFiniteError, Seeds, Sequences, TokenScores
from tests import tiny

ANSWERS = ("b", "c c c", "", "d e", "h g f e d c b", "a")  # the fifth is longer than a response may be


def batch(policy: HFPolicy) -> DemonstrationBatch:
    return DemonstrationBatch(policy.encode(tiny.PROMPTS, ANSWERS).sequences)


def build(policy: HFPolicy, **changes: object) -> SFT:
    settings = SFTConfig(**({"updates": 3, "learning_rate": 1e-2, "lr_schedule": "constant"} | changes))
    return SFT(settings, policy=policy, updates=3, seeds=Seeds(0))


def weights(policy: HFPolicy) -> list[torch.Tensor]:
    return [p.detach().clone() for p in policy.trainable()]


def apart(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


def test_loss_and_step_are_those_of_float64_cross_entropy() -> None:
    """Row by row without padding: -log p of each answer token and of EOS, none of the prompt's, over all tokens."""
    policy = tiny.scratch()
    exact = copy.deepcopy(policy._roles.use("policy")).double()
    names = policy.tokenizer.get_vocab()
    nats = []
    for prompt, answer in zip(tiny.PROMPTS, ANSWERS, strict=True):
        asked = [names[word] for word in (*prompt.text.split(), "<bot>")]
        told = [*(names[word] for word in answer.split()), tiny.EOS][:6]
        logits = exact(input_ids=torch.tensor([asked + told])).logits[0]
        for t, token in enumerate(told):
            row = logits[len(asked) - 1 + t]
            nats.append(row.exp().sum().log() - row[token])
    loss = sum(nats) / len(nats)
    gradients = torch.autograd.grad(loss, list(exact.parameters()))
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))

    settings = {"max_grad_norm": 0.0, "adam_eps": 1e-2}  # a large epsilon keeps the step's dependence on the size
    report = build(policy, **settings).update(batch(policy))
    assert report.metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert report.metrics["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert (report.metrics["tokens"], report.optimizer_steps) == (len(nats), 1)
    # Adam's first step: both moments are those of the gradient itself.
    stepped = [p - 1e-2 * g / (g.abs() + 1e-2) for p, g in zip(exact.parameters(), gradients, strict=True)]
    assert apart([w.double() for w in weights(policy)], [p.detach() for p in stepped]) < 1e-5


@pytest.mark.parametrize("micro", [1, 4])
def test_micro_batches_change_memory_only(micro: int) -> None:
    outcomes = []
    for size in (64, micro):
        policy = tiny.scratch()
        sft = build(policy, micro_batch_size=size)
        metrics = [dict(sft.update(batch(policy)).metrics) for _ in range(3)]
        outcomes.append((metrics, weights(policy)))
    (expected_metrics, expected), (metrics, got) = outcomes
    for one, other in zip(metrics, expected_metrics, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert apart(got, expected) < 1e-4


def test_padding_changes_nothing() -> None:
    policy, other = tiny.scratch(), tiny.scratch()
    clean = batch(policy).sequences
    dirty = Sequences(
        clean.prompt_ids.masked_fill(~clean.prompt_mask, 7),
        clean.prompt_mask,
        clean.response_ids.masked_fill(~clean.response_mask, 9),
        clean.response_mask,
    )
    losses = [build(p).update(DemonstrationBatch(s)).metrics["loss"] for p, s in ((policy, clean), (other, dirty))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert apart(weights(policy), weights(other)) < 1e-5


def test_it_learns_what_it_is_shown() -> None:
    policy = tiny.scratch()
    settings = SFTConfig(updates=60, learning_rate=1e-2)
    sft = SFT(settings, policy=policy, updates=60, seeds=Seeds(0))
    losses = [sft.update(batch(policy)).metrics["loss"] for _ in range(60)]
    assert losses[-1] < 0.2 < 2 < losses[0]
    shown = policy.generate(tiny.PROMPTS, tiny.Sampling(temperature=1e-3), rng=torch.Generator().manual_seed(0)).samples
    assert shown.texts == tuple(" ".join(answer.split()[:6]) for answer in ANSWERS)
    assert shown.finished.tolist() == [True, True, True, True, False, True]


def test_a_loss_that_is_not_finite_stops_before_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.scratch()
    before, honest = weights(policy), policy.logprobs
    monkeypatch.setattr(policy, "logprobs", lambda s: TokenScores(honest(s).logprobs * math.nan))
    with pytest.raises(NonFiniteError, match="the SFT loss"):
        build(policy).update(batch(policy))
    assert apart(before, weights(policy)) == 0


def test_a_restored_optimizer_goes_on_bit_for_bit() -> None:
    policy = tiny.scratch()
    sft = build(policy, lr_schedule="cosine")
    sft.update(batch(policy))
    file = io.BytesIO()
    torch.save(sft.state_dict(), file)
    kept = weights(policy)
    report = sft.update(batch(policy))

    other = tiny.scratch(seed=1)
    with torch.no_grad():
        for parameter, value in zip(other.trainable(), kept, strict=True):
            parameter.copy_(value)
    restored = build(other, lr_schedule="cosine")
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert dict(restored.update(batch(other)).metrics) == dict(report.metrics)
    assert apart(weights(other), weights(policy)) == 0
