"""Whole updates on policies of a few thousand weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from alignbench_dpo.aot import AOT
from alignbench_dpo.bco import BCO
from alignbench_dpo.config import (
    APOConfig,
    BCOConfig,
    CPOConfig,
    DPOConfig,
    EXOConfig,
    IPOConfig,
    KTOConfig,
    LengthNormalisedDPOConfig,
    OnlineDPOConfig,
    ORPOConfig,
    SimPOConfig,
    SPPOConfig,
    WPOConfig,
)
from alignbench_dpo.config_further import AOTConfig, TDPOConfig
from alignbench_dpo.kto import KTO, mismatch
from alignbench_dpo.losses import kto_loss, log_odds, orpo_loss
from alignbench_dpo.offline import CPO, DPO, IPO, ORPO, SimPO
from alignbench_dpo.online import OnlineDPO, best_and_worst
from alignbench_dpo.tdpo import TDPO
from alignbench_dpo.weighed import APO, EXO, SPPO, WPO, LengthNormalisedDPO
from alignbench_hf.policy import HFPolicy
from torch import Tensor

from alignbench import (
    REFERENCE,
    LabelledBatch,
    NonFiniteError,
    PolicyOptimizer,
    PreferenceBatch,
    ScoredRollout,
    Seeds,
    Sequences,
    UserError,
    functional,
)
from alignbench.pipeline.experience import reference_logprobs
from tests import tiny

SIZE = {"updates": 4, "batch_size": 6, "micro_batch_size": 6, "learning_rate": 1e-2, "lr_schedule": "constant"}
KINDS = {
    "dpo": (DPO, DPOConfig),
    "ipo": (IPO, IPOConfig),
    "orpo": (ORPO, ORPOConfig),
    "simpo": (SimPO, SimPOConfig),
    "kto": (KTO, KTOConfig),
    "bco": (BCO, BCOConfig),
    "cpo": (CPO, CPOConfig),
    "apo": (APO, APOConfig),
    "exo": (EXO, EXOConfig),
    "sppo": (SPPO, SPPOConfig),
    "ln_dpo": (LengthNormalisedDPO, LengthNormalisedDPOConfig),
    "wpo": (WPO, WPOConfig),
    "aot": (AOT, AOTConfig),
    "tdpo": (TDPO, TDPOConfig),
}
WORDS = ("a b c", "h", "c h c d", "b", "g", "a h e")
every_kind = pytest.mark.parametrize("kind", KINDS)


def policy() -> HFPolicy:
    """One that has moved away from its reference."""
    made = tiny.scratch()
    made.freeze_reference()
    tiny.move(made, scale=0.05)
    return made


def build(kind: str, on: HFPolicy, **changes: object) -> PolicyOptimizer[Any]:
    algorithm, config = KINDS[kind]
    made: PolicyOptimizer[Any] = algorithm(config(**(SIZE | changes)), policy=on, updates=4, seeds=Seeds(0))
    return made


def pairs(on: HFPolicy, texts: Sequence[str] = ("a", "b c d", "e f", "h g f e d", "c c", "a b")) -> PreferenceBatch:
    """A pair for each prompt."""
    prompts = [tiny.prompt(text) for text in texts]
    chosen, rejected = (
        on.encode(prompts, [WORDS[(i + shift) % len(WORDS)] for i in range(len(texts))]).sequences for shift in (0, 3)
    )
    ref = [reference_logprobs(on, side) for side in (chosen, rejected)]
    return PreferenceBatch(chosen, rejected, None, *ref)


def labelled(batch: PreferenceBatch) -> LabelledBatch:
    """The pairs taken apart: the two responses of a pair are neighbours, the good one first."""
    count = len(batch)
    order = torch.arange(2 * count).reshape(2, count).T.flatten()
    both = functional.stacked(batch.chosen, batch.rejected)
    assert batch.ref_chosen is not None and batch.ref_rejected is not None
    ref = torch.cat([batch.ref_chosen, batch.ref_rejected])
    return LabelledBatch(both, torch.arange(2 * count) < count, ref).select(order)


def fed(kind: str, batch: PreferenceBatch) -> PreferenceBatch | LabelledBatch:
    """As the algorithm is fed these pairs."""
    return labelled(batch) if kind in ("kto", "bco") else batch


def weights(on: HFPolicy) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in on.trainable()]


def apart(left: list[Tensor], right: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


def response_logprobs(on: HFPolicy, sequences: Sequences, role: str = "policy") -> Tensor:
    """Summed log-probabilities, a response at a time and without padding."""
    found = []
    for row in range(len(sequences)):
        prompt = sequences.prompt_ids[row][sequences.prompt_mask[row].bool()]
        response = sequences.response_ids[row][sequences.response_mask[row].bool()]
        with torch.no_grad():
            logits = on._roles.use(role)(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        found.append(torch.log_softmax(logits.float(), -1).gather(1, response[:, None]).sum())
    return torch.stack(found)


@every_kind
def test_loss_falls_and_the_margin_grows(kind: str) -> None:
    on = policy()
    algorithm, batch = build(kind, on, updates=12), pairs(on)
    at_reference = response_logprobs(on, batch.chosen, REFERENCE)
    reports = [algorithm.update(fed(kind, batch)) for _ in range(12)]
    assert [report.optimizer_steps for report in reports] == [1] * 12
    first, last = reports[0].metrics, reports[-1].metrics
    assert last["loss"] < first["loss"]
    assert last["margin"] > first["margin"]
    assert last["margin"] == pytest.approx(last["reward_chosen"] - last["reward_rejected"], abs=1e-4)
    assert last["accuracy"] >= first["accuracy"]
    assert first["tokens"] == float(batch.chosen.response_mask.sum() + batch.rejected.response_mask.sum())
    assert first["learning_rate"] == 1e-2 and first["gradient_norm"] > 0
    torch.testing.assert_close(response_logprobs(on, batch.chosen, REFERENCE), at_reference, rtol=0, atol=0)


@every_kind
def test_figures_are_those_of_each_response_alone(kind: str) -> None:
    """Against plain transformers, a response at a time: what padding or a wrong mask would change."""
    on = policy()
    batch = pairs(on)
    sides = [response_logprobs(on, side) for side in (batch.chosen, batch.rejected)]
    lengths = [side.response_mask.sum(1) for side in (batch.chosen, batch.rejected)]
    metrics = build(kind, on, micro_batch_size=4).update(fed(kind, batch)).metrics
    for name, logprobs in zip(("logprob_chosen", "logprob_rejected"), sides, strict=True):
        assert metrics[name] == pytest.approx(float(logprobs.mean()), abs=1e-4)
    if kind == "simpo":
        rewards = [2.0 * logprob / length for logprob, length in zip(sides, lengths, strict=True)]
    elif kind == "orpo":
        mean = [(logprob / length).exp() for logprob, length in zip(sides, lengths, strict=True)]
        rewards = [(p / (1 - p)).log() for p in mean]
    elif kind == "cpo":
        rewards = [0.1 * logprob for logprob in sides]
    else:
        refs = [response_logprobs(on, side, REFERENCE) for side in (batch.chosen, batch.rejected)]
        rewards = [0.1 * (logprob - ref) for logprob, ref in zip(sides, refs, strict=True)]
        if kind == "ln_dpo":
            rewards = [5.0 / 0.1 * reward / length for reward, length in zip(rewards, lengths, strict=True)]
        assert metrics["log_ratio_chosen"] == pytest.approx(float((sides[0] - refs[0]).mean()), abs=1e-4)
        assert metrics["log_ratio_rejected"] == pytest.approx(float((sides[1] - refs[1]).mean()), abs=1e-4)
    assert metrics["reward_chosen"] == pytest.approx(float(rewards[0].mean()), abs=1e-4)
    assert metrics["reward_rejected"] == pytest.approx(float(rewards[1].mean()), abs=1e-4)
    right = rewards[0] > rewards[1]
    if kind in ("kto", "bco"):  # each response alone, against the reference point
        origin = 0.1 * metrics["z0"] if kind == "kto" else metrics["shift"]
        right = torch.cat([rewards[0] > origin, rewards[1] < origin])
    assert metrics["accuracy"] == pytest.approx(float(right.float().mean()))


@every_kind
def test_what_lies_outside_the_masks_changes_nothing(kind: str) -> None:
    def step(fill: int) -> tuple[dict[str, float], list[Tensor]]:
        on = policy()
        batch = pairs(on)
        filled = [
            dataclasses.replace(side, response_ids=side.response_ids.masked_fill(~side.response_mask.bool(), fill))
            for side in (batch.chosen, batch.rejected)
        ]
        batch = dataclasses.replace(batch, chosen=filled[0], rejected=filled[1])
        return dict(build(kind, on).update(fed(kind, batch)).metrics), weights(on)

    (metrics, moved), (again, same) = step(0), step(7)
    assert metrics == pytest.approx(again)
    assert apart(moved, same) < 1e-6


@every_kind
def test_gradient_does_not_depend_on_micro_batches(kind: str) -> None:
    def gradient(size: int) -> tuple[dict[str, float], list[Tensor]]:
        on = policy()
        algorithm = build(kind, on, micro_batch_size=size, learning_rate=0.0, max_grad_norm=0.0)
        metrics = algorithm.update(fed(kind, pairs(on))).metrics
        return dict(metrics), [parameter.grad for parameter in on.trainable() if parameter.grad is not None]

    (whole, one), (pieces, other) = gradient(6), gradient(4)
    assert whole == pytest.approx(pieces, abs=1e-5, rel=1e-5)
    largest = max(float(g.abs().max()) for g in one)
    assert apart(one, other) < 1e-5 * max(largest, 1.0) < largest


@every_kind
def test_a_loss_that_is_not_finite_stops_before_the_step(kind: str) -> None:
    on = policy()
    algorithm, batch = build(kind, on), pairs(on)
    with torch.no_grad():
        on.trainable()[0].fill_(float("nan"))
    before = weights(on)
    with pytest.raises(NonFiniteError, match="preference loss"):
        algorithm.update(fed(kind, batch))
    assert all(torch.equal(a, b) or bool(a.isnan().any()) for a, b in zip(before, weights(on), strict=True))


@pytest.mark.parametrize("kind", ["dpo", "ipo", "ln_dpo"])
def test_soft_labels(kind: str) -> None:
    """A label of a half asks for equal log-ratios; hard labels ignore probabilities; without them soft labels stop."""
    on = policy()
    batch = pairs(on)
    with pytest.raises(UserError, match=r"algo\.soft_labels=true .* annotator"):
        build(kind, on, soft_labels=True).update(batch)
    sure, unsure = (dataclasses.replace(batch, probability=torch.full((6,), p)) for p in (1.0, 0.5))
    hard = build(kind, policy()).update(batch).metrics
    assert build(kind, policy(), soft_labels=True).update(sure).metrics == hard
    assert build(kind, policy()).update(unsure).metrics == hard
    algorithm = build(kind, on, soft_labels=True, updates=30)
    margins = [abs(algorithm.update(unsure).metrics["margin"]) for _ in range(30)]
    assert margins[-1] < 0.5 * margins[0]


def test_ipo_is_dpo_with_its_loss() -> None:
    batch = pairs(policy())
    ipo = build("ipo", policy(), tau=0.4).update(batch).metrics
    assert build("dpo", policy(), loss="ipo", beta=0.4).update(batch).metrics == ipo


def test_bco_learns_from_labels_that_are_all_alike() -> None:
    on = policy()
    batch = labelled(pairs(on))
    alike = dataclasses.replace(batch, good=torch.ones_like(batch.good))
    metrics = build("bco", on).update(alike).metrics
    assert metrics["shift"] == pytest.approx(metrics["reward_chosen"], abs=1e-5) and "reward_rejected" not in metrics


def test_exo_stays_finite_where_the_annotator_is_certain() -> None:
    on = policy()
    sure = dataclasses.replace(pairs(on), probability=torch.tensor([1.0, 0.0, 0.5, 1.0, 0.9, 0.1]))
    assert build("exo", on, soft_labels=True, beta=3.0).update(sure).metrics["gradient_norm"] > 0


def test_apo_moves_both_sides_as_its_anchor_says() -> None:
    """arXiv 2408.06266, figure 1: zero raises the chosen response and lowers the rejected one, down lowers both and the rejected one more."""
    changed = {}
    for anchor in ("zero", "down"):
        on = policy()
        batch = pairs(on, ("a",))
        algorithm = build("apo", on, anchor=anchor, updates=12, beta=1.0, learning_rate=3e-3)
        reports = [algorithm.update(batch).metrics for _ in range(12)]
        changed[anchor] = [
            reports[-1][f"logprob_{side}"] - reports[0][f"logprob_{side}"] for side in ("chosen", "rejected")
        ]
    assert changed["zero"][0] > 0 > changed["zero"][1]
    assert 0 > changed["down"][0] > changed["down"][1]


def test_simpo_with_imitation_is_cpo_simpo() -> None:
    on = policy()
    batch = pairs(on)
    plain, both = (build("simpo", policy(), alpha=alpha).update(batch).metrics["loss"] for alpha in (0.0, 0.5))
    nll = -(response_logprobs(on, batch.chosen) / batch.chosen.response_mask.sum(1)).mean()
    assert both - plain == pytest.approx(0.5 * float(nll), abs=1e-4)


def test_orpo_stays_finite_where_the_policy_is_certain() -> None:
    means = torch.tensor([0.0, -1e-12, -50.0], requires_grad=True)
    loss = orpo_loss(means, means.flip(0), 0.1).sum() + log_odds(means).sum()
    loss.backward()
    assert bool(torch.isfinite(loss)) and means.grad is not None and bool(torch.isfinite(means.grad).all())


# KTO's reference point


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        (("a", "b", "c", "d", "e", "f"), 6),
        (("a", "a", "b", "b", "c", "c"), 6),
        (("a", "b", "a", "b", "a", "b"), 6),
        (("a", "b", "a", "c", "a", "a"), 4),
        (("a", "b b", "c"), 3),
        (("a", "b"), 2),
        (("a", "a", "a"), 0),
        (("a",), 0),
    ],
)
def test_mismatched_rows_answer_another_prompt(texts: tuple[str, ...], rows: int) -> None:
    """As many rows as can be, and each response at most once."""
    on, prompts = policy(), [tiny.prompt(text) for text in texts]
    letters = "abcdef"[: len(texts)]  # which row a response belongs to
    found = mismatch(on.encode(prompts, list(letters)).sequences)
    if rows == 0:
        assert found is None
        return
    assert found is not None and len(found) == rows
    owners = [texts[letters.index(given[0])] for _, given in shown(on, found)]
    assert all(prompt != owner for (prompt, _), owner in zip(shown(on, found), owners, strict=True))
    assert len({given[0] for _, given in shown(on, found)}) == rows


@pytest.mark.parametrize("texts", [("a", "b", "c"), ("a", "a", "b", "c"), ("a", "b", "a", "c", "c", "b")])
def test_both_responses_of_a_pair_meet_the_same_other_prompt(texts: tuple[str, ...]) -> None:
    on, prompts = policy(), [tiny.prompt(text) for text in texts]
    letters = "abcdef"[: len(texts)]
    pair = functional.stacked(
        on.encode(prompts, list(letters)).sequences,
        on.encode(prompts, [f"{letter} h h" for letter in letters]).sequences,
    ).select(torch.arange(2 * len(texts)).reshape(2, -1).T.flatten())
    found = mismatch(pair)
    assert found is not None
    met: dict[str, list[str]] = {}
    for prompt, given in shown(on, found):
        met.setdefault(given[0], []).append(prompt)
    assert all(len(asked) == 2 and len(set(asked)) == 1 for asked in met.values())


def shown(on: HFPolicy, sequences: Sequences) -> list[tuple[str, list[str]]]:
    """The prompt and the tokens of the response of each row."""
    words = on.tokenizer.convert_ids_to_tokens
    return [
        (" ".join(words(prompt[asked.bool()].tolist())[:-1]), words(response[given.bool()].tolist()))
        for prompt, asked, response, given in zip(*vars(sequences).values(), strict=True)
    ]


def drifted(towards: PreferenceBatch, by: float) -> HFPolicy:
    """A policy that was trained a little towards (or away from) the responses of a batch, its reference left behind."""
    on = policy()
    others = mismatch(labelled(towards).sequences)
    assert others is not None
    (by * on.logprobs(others).logprobs.sum()).backward()
    with torch.no_grad():
        for parameter in on.trainable():
            parameter += 2e-3 * parameter.grad
            parameter.grad = None
    return on


@pytest.mark.parametrize("by", [1.0, -1.0])
def test_kto_reference_point(by: float) -> None:
    """The mean log-ratio of the mismatched rows, at least 0; it is a number, through which no gradient flows."""
    batch = pairs(policy())
    on = drifted(batch, by)
    found = mismatch(labelled(batch).sequences)
    assert found is not None
    expected = float((response_logprobs(on, found) - response_logprobs(on, found, REFERENCE)).mean())
    assert expected * by > 0.1
    metrics = build("kto", on, learning_rate=0.0, max_grad_norm=0.0).update(labelled(batch)).metrics
    assert metrics["z0"] == pytest.approx(max(expected, 0.0), abs=1e-4)
    assert metrics["mismatched"] == 12.0

    gradient = [parameter.grad.clone() for parameter in on.trainable() if parameter.grad is not None]
    for parameter in on.trainable():
        parameter.grad = None
    ratios = [
        on.logprobs(side).logprobs.sum(1) - ref
        for side, ref in ((batch.chosen, batch.ref_chosen), (batch.rejected, batch.ref_rejected))
    ]
    good = torch.arange(12) < 6
    kto_loss(torch.cat(ratios), good, torch.tensor(max(expected, 0.0)), 0.1, 1.0, 1.0).mean().backward()
    by_hand = [parameter.grad for parameter in on.trainable() if parameter.grad is not None]
    assert apart(gradient, by_hand) < 1e-5


def test_kto_learns_from_a_batch_of_one_pair() -> None:
    on = policy()
    before = weights(on)
    alone = build("kto", on).update(labelled(pairs(on)).select(torch.arange(2)))
    assert (alone.metrics["z0"], alone.metrics["mismatched"], alone.optimizer_steps) == (0.0, 0.0, 1)
    assert apart(before, weights(on)) > 0


def test_kto_learns_from_labels_without_pairs() -> None:
    """Two good responses to a bad one: the good become likelier, the bad less so."""
    on = policy()
    batch = labelled(pairs(on)).select(torch.tensor([0, 3, 4]))
    assert batch.good.tolist() == [True, False, True]
    algorithm = build("kto", on, updates=12)
    reports = [algorithm.update(batch).metrics for _ in range(12)]
    assert reports[-1]["log_ratio_chosen"] > reports[0]["log_ratio_chosen"]
    assert reports[-1]["log_ratio_rejected"] < reports[0]["log_ratio_rejected"]
    assert reports[0]["mismatched"] == 3.0


@pytest.mark.parametrize("good", [True, False])
def test_kto_learns_where_all_labels_are_alike(good: bool) -> None:
    """What a batch has none of has no figures."""
    on = policy()
    batch = labelled(pairs(on))
    metrics = build("kto", on).update(batch.select((batch.good == good).nonzero().squeeze(1))).metrics
    there, absent = ("chosen", "rejected") if good else ("rejected", "chosen")
    assert f"reward_{there}" in metrics and not {f"reward_{absent}", f"log_ratio_{absent}", "margin"} & set(metrics)


@pytest.mark.parametrize(("weight", "counts"), [("desirable_weight", True), ("undesirable_weight", False)])
def test_kto_weighs_the_good_and_the_bad(weight: str, counts: bool) -> None:
    """Without the weight of the others, their log-ratios move only through shared weights: their loss is 0."""
    on = policy()
    batch = labelled(pairs(on))
    alone = batch.select((batch.good == counts).nonzero().squeeze(1))
    only = {"desirable_weight": 0.0, "undesirable_weight": 0.0, weight: 2.0}
    both, one = (build("kto", policy(), **only).update(part).metrics["loss"] for part in (batch, alone))
    plain = build("kto", policy()).update(alone).metrics
    assert one == pytest.approx(2 * plain["loss"], rel=1e-5)
    assert 0 < both < one


# Online DPO


def online(on: HFPolicy, **changes: object) -> OnlineDPO:
    settings = OnlineDPOConfig(**(SIZE | {"batch_size": 12} | changes))
    return OnlineDPO(settings, policy=on, updates=4, seeds=Seeds(0))


def test_best_and_worst_of_each_prompt() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0, -1.0, 0.0])
    found = best_and_worst(scores, 3)
    assert (found.best.tolist(), found.worst.tolist(), found.ties) == ([1, 6], [0, 7], 1)


def test_ties_are_counted_and_left_out() -> None:
    on = policy()
    batch = tiny.scored(on, n=2)
    scores = batch.scores.clone()
    scores[2:6] = 1.0
    report = online(on, missing_eos="keep").update(ScoredRollout(batch.rollout, scores))
    assert (report.metrics["pairs"], report.metrics["ties"], report.optimizer_steps) == (4.0, 2.0, 1)


def test_all_ties_make_no_step() -> None:
    on = policy()
    before, batch = weights(on), tiny.scored(on, n=2)
    algorithm = online(on, missing_eos="keep", weight_decay=0.1)
    report = algorithm.update(ScoredRollout(batch.rollout, torch.ones(12)))
    assert (report.optimizer_steps, report.metrics["loss"], report.metrics["ties"]) == (0, 0.0, 6.0)
    assert apart(before, weights(on)) == 0.0


def test_cut_off_responses_lose_ties() -> None:
    """The missing-EOS rule acts before the pairs are chosen."""
    on = policy()
    rollout = tiny.scored(on, n=2).rollout
    finished = torch.tensor([True, False, True, True, False, False, False, True, True, True, True, True])
    rollout = replace(rollout, samples=replace(rollout.samples, finished=finished))
    report = online(on, missing_eos="subtract").update(ScoredRollout(rollout, torch.ones(12)))
    assert (report.metrics["pairs"], report.metrics["ties"]) == (2, 4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_online_dpo_is_dpo_on_the_pairs_of_its_rollout(temperature: float) -> None:
    """Hard and soft labels, at temperature 1 by DPO's own update; the KL is that of the sampled responses."""
    start = policy()
    batch = tiny.scored(start, n=3, temperature=temperature)
    sequences, found = batch.rollout.samples.sequences, best_and_worst(batch.scores, 3)
    prefer = torch.sigmoid(batch.scores[found.best] - batch.scores[found.worst])
    with torch.no_grad():
        ref = start.logprobs(sequences, role=REFERENCE, temperature=temperature).logprobs.sum(1)
        own = start.logprobs(sequences, temperature=temperature).logprobs.sum(1)
    given = PreferenceBatch(
        sequences.select(found.best), sequences.select(found.worst), prefer, ref[found.best], ref[found.worst]
    )
    for labels in ("hard", "soft"):
        one, other = policy(), policy()
        settings = {"batch_size": 18, "samples_per_prompt": 3, "temperature": temperature}
        metrics = online(one, labels=labels, missing_eos="keep", **settings).update(batch).metrics
        assert metrics["kl"] == pytest.approx(float((own - ref).mean()), abs=1e-4)
        margin = 0.1 * (own - ref)
        assert metrics["margin"] == pytest.approx(float((margin[found.best] - margin[found.worst]).mean()), abs=1e-4)
        if temperature == 1.0:
            plain = build("dpo", other, soft_labels=labels == "soft").update(given).metrics
            assert {name: metrics[name] for name in plain} == pytest.approx(dict(plain), abs=1e-5)
            assert apart(weights(one), weights(other)) < 1e-4
