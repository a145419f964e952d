"""The learned reward on a tiny policy: it learns, normalises, reports, saves, and scores each row on its own."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_rewards.config import LearnedConfig
from alignbench_rewards.learned import LearnedReward

from alignbench import (
    Annotator,
    DataSource,
    NonFiniteError,
    Prompt,
    Ranking,
    Samples,
    Sampling,
    Seeds,
    Split,
    UserError,
)
from alignbench.store import keys
from tests import tiny

WORDS = ("a b", "h", "c h c", "b", "h h h", "d e f a", "g a h", "")


class NoData(DataSource):
    def prompts(self, split: Split) -> tuple[Prompt, ...]:
        return ()


class LovesH(Annotator):
    """Prefers the response with more of the letter h."""

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float | None:
        return 0.9 if first.count("h") > second.count("h") else 0.1 if first.count("h") < second.count("h") else 0.5


def loving_h(seed: int, count: int) -> list[Ranking]:
    """Rankings of four responses by their number of h."""
    rng = Seeds(seed).python("rankings")
    rankings = []
    for _ in range(count):
        words = tuple(rng.sample(WORDS, 4))
        counts = sorted({word.count("h") for word in words}, reverse=True)
        ranks = tuple(counts.index(word.count("h")) for word in words)
        rankings.append(Ranking(rng.choice(tiny.PROMPTS), words, ranks))
    return rankings


def baseline(policy: HFPolicy) -> Samples:
    return policy.generate(tiny.PROMPTS, Sampling(), n=8, rng=torch.Generator().manual_seed(5)).samples


def build(policy: HFPolicy, **changes: object) -> LearnedReward:
    settings = {"learning_rate": 1e-2, "batch_size": 16, "updates": 30}
    return LearnedReward(LearnedConfig(**(settings | changes)), policy=policy, data=NoData(), seeds=Seeds(0))


def fit(reward: LearnedReward, rankings: list[Ranking], held_out: list[Ranking], samples: Samples):  # type: ignore[no-untyped-def]
    lines: list[tuple[int, int, dict[str, float]]] = []
    report = reward.fit(
        rankings, held_out, samples, annotator=LovesH(), progress=lambda *line: lines.append((*line[:2], dict(line[2])))
    )
    return report, lines


@pytest.mark.parametrize("loss", ["bradley_terry", "plackett_luce"])
@pytest.mark.parametrize("make", [tiny.scratch, tiny.adapters])
@pytest.mark.parametrize("head", ["linear", "evidence"])
def test_it_learns_a_preference_and_normalises(loss: str, make, head: str) -> None:  # type: ignore[no-untyped-def]
    policy = make(scalar_head=head)
    samples = baseline(policy)
    before = [p.detach().clone() for p in policy.trainable()]
    reward = build(policy, loss=loss)
    report, lines = fit(reward, loving_h(0, 100), loving_h(1, 40), samples)
    assert report.metrics["held_out_accuracy"] > 0.9
    assert report.metrics["annotator_ceiling"] == 1.0
    assert report.metrics["held_out_pairs"] == sum(
        a.count("h") > b.count("h") for r in loving_h(1, 40) for a in r.responses for b in r.responses
    )
    assert "held-out accuracy" in report.summary
    assert [(update, updates) for update, updates, _ in lines] == [(i, 30) for i in range(1, 31)]
    assert sum(line["loss"] for *_, line in lines[-5:]) < 0.8 * sum(line["loss"] for *_, line in lines[:5])

    scores = reward.score(samples)
    assert (scores.shape, scores.dtype, scores.requires_grad) == ((48,), torch.float32, False)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std(correction=0)) == pytest.approx(1, rel=1e-3)
    lengths = samples.sequences.response_mask.sum(1).float()
    correlation = float(torch.corrcoef(torch.stack([lengths, scores]))[0, 1])
    assert report.metrics["length_correlation"] == pytest.approx(correlation, abs=1e-4)
    told = reward.score(policy.encode(tiny.PROMPTS[:2] * 2, ["h h", "h", "b", "a"])).tolist()
    assert min(told[:2]) > max(told[2:])
    assert all(torch.equal(a, b) for a, b in zip(before, policy.trainable(), strict=True)), "the policy is not touched"


def test_without_normalisation_scores_are_raw() -> None:
    policy = tiny.scratch()
    samples, reward = baseline(policy), build(policy, normalise=False, updates=5)
    fit(reward, loving_h(0, 20), [], samples)
    last = samples.sequences.response_mask.sum(1)
    values = reward._roles[0].values(samples.sequences).detach()
    torch.testing.assert_close(reward.score(samples), values[torch.arange(len(samples)), last])
    assert abs(float(reward.score(samples).mean())) > 1e-3


def test_micro_batches_change_memory_only() -> None:
    outcomes = []
    for micro in (16, 3):
        policy = tiny.scratch()
        samples = baseline(policy)
        reward = build(policy, micro_batch_size=micro, updates=4)
        _, lines = fit(reward, loving_h(0, 20), [], samples)
        outcomes.append(([line for *_, line in lines], reward.score(samples)))
    (expected, scores), (lines, other) = outcomes
    for one, two in zip(lines, expected, strict=True):
        assert one == pytest.approx(two, rel=1e-3)
    torch.testing.assert_close(other, scores, rtol=0, atol=1e-3)


@pytest.mark.parametrize("head", ["linear", "evidence"])
def test_save_and_load_give_identical_scores(tmp_path: Path, head: str) -> None:
    policy = tiny.scratch(scalar_head=head)
    samples, reward = baseline(policy), build(policy, updates=5)
    fit(reward, loving_h(0, 20), [], samples)
    reward.save(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}
    other = build(tiny.scratch(seed=1, scalar_head=head))
    assert not torch.equal(other.score(samples), reward.score(samples))
    other.load(tmp_path)
    assert torch.equal(other.score(samples), reward.score(samples))


@pytest.mark.parametrize("head", ["linear", "evidence"])
def test_a_score_does_not_depend_on_its_neighbours(head: str) -> None:
    policy = tiny.scratch(scalar_head=head, scoring_batch_size=5)
    samples, reward = baseline(policy), build(policy, updates=10)
    fit(reward, loving_h(0, 50), [], samples)
    texts = ["h", "a b h d e", "", "c", "b h", "h h h h h"]
    together = reward.score(policy.encode(tiny.PROMPTS, texts))
    alone = [reward.score(policy.encode([p], [t])) for p, t in zip(tiny.PROMPTS, texts, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)
    turned = reward.score(policy.encode(tiny.PROMPTS[::-1], texts[::-1]))
    torch.testing.assert_close(turned.flip(0), together, rtol=0, atol=1e-4)


def test_a_cut_off_response_is_read_without_eos() -> None:
    policy = tiny.scratch()
    reward = build(policy, updates=10)
    fit(reward, loving_h(0, 50), [], baseline(policy))
    cut, whole = (policy.encode(tiny.PROMPTS[:1], ["h b"], finished=[end]) for end in (False, True))
    assert cut.sequences.response_mask.sum() + 1 == whole.sequences.response_mask.sum()
    assert reward.score(cut) != reward.score(whole)


def test_a_cut_off_response_is_learnt_without_eos() -> None:
    """What a ranking says of how its responses ended reaches the model: training and held-out figures differ by it."""
    outcomes = []
    for end in (True, False):
        policy = tiny.scratch()
        samples = baseline(policy)
        rankings = [dataclasses.replace(r, finished=(end,) * 4) for r in loving_h(0, 20)]
        report, lines = fit(build(policy, updates=2), rankings, rankings, samples)
        outcomes.append((report.metrics["calibration_error"], [line["loss"] for *_, line in lines]))
    assert outcomes[0][0] != outcomes[1][0]
    assert outcomes[0][1] != outcomes[1][1]


def test_fitting_repeats_under_a_seed() -> None:
    scores = []
    for _ in range(2):
        policy = tiny.scratch()
        samples, reward = baseline(policy), build(policy, updates=5)
        fit(reward, loving_h(0, 40), [], samples)
        scores.append(reward.score(samples))
    assert torch.equal(*scores)


def test_rankings_that_say_nothing_are_set_aside() -> None:
    """All tied, or all the same text: neither trained on nor counted among the held-out pairs."""
    policy = tiny.scratch()
    tied, same = Ranking(tiny.PROMPTS[0], ("a", "h"), (0, 0)), Ranking(tiny.PROMPTS[1], ("a", "a"), (0, 1))
    samples = baseline(policy)
    report, _ = fit(build(policy, updates=2), [*loving_h(0, 8), tied, same], [tied, *loving_h(1, 8), same], samples)
    assert (report.metrics["rankings"], report.metrics["rankings_without_pairs"]) == (8, 2)
    assert all(math.isfinite(value) for value in report.metrics.values())
    report, _ = fit(build(tiny.scratch(), updates=2), loving_h(0, 8), [tied, same], samples)
    assert not {"held_out_accuracy", "held_out_pairs"} & set(report.metrics)
    assert report.summary == "no held-out rankings"
    with pytest.raises(UserError, match="nothing to learn from"):
        fit(build(tiny.scratch(), updates=2), [tied, same], [], samples)


@pytest.mark.parametrize("rows", [1, 3])
def test_equal_baseline_scores_are_shifted_but_not_blown_up(rows: int) -> None:
    policy = tiny.scratch()
    same = policy.encode(tiny.PROMPTS[:1] * rows, ["a"] * rows)
    reward = build(policy, updates=2)
    fit(reward, loving_h(0, 8), [], same)
    assert reward.score(same).abs().max() < 1e-5
    other = float(reward.score(policy.encode(tiny.PROMPTS[:1], ["h h"])))
    assert 1e-3 < abs(other) < 100


def test_figures_that_are_not_finite_stop_it() -> None:
    policy = tiny.scratch()
    samples, reward = baseline(policy), build(policy, updates=2)
    with torch.no_grad():
        next(iter(reward._roles[0].parameters())).fill_(math.nan)
    with pytest.raises(NonFiniteError, match="the learned reward"):
        reward.score(samples)
    with pytest.raises(NonFiniteError, match="the reward model's loss"):
        fit(reward, loving_h(0, 8), [], samples)


def test_unknown_loss_lists_the_choices() -> None:
    with pytest.raises(UserError, match=r"bradley_tery.*Did you mean 'bradley_terry'\?.*plackett_luce"):
        build(tiny.scratch(), loss="bradley_tery")


def test_a_normalisation_beside_the_head_is_still_read(tmp_path: Path) -> None:
    """As runs wrote it from before the head held it."""
    policy = tiny.scratch()
    samples, reward = baseline(policy), build(policy, updates=2, normalise=False)
    fit(reward, loving_h(0, 8), [], samples)
    reward.save(tmp_path)
    (tmp_path / "normalisation.json").write_text(json.dumps({"shift": -1.5, "scale": 0.5}))
    other = build(tiny.scratch(seed=1))
    other.load(tmp_path)
    torch.testing.assert_close(other.score(samples), (reward.score(samples) + 1.5) / 0.5)


@pytest.mark.parametrize("make", [tiny.scratch, tiny.adapters])
@pytest.mark.parametrize("head", ["linear", "evidence"])
def test_a_value_network_starts_in_the_unit_of_the_scores(make, head: str) -> None:  # type: ignore[no-untyped-def]
    policy = make(scalar_head=head)
    samples, reward = baseline(policy), build(policy, updates=10)
    report, _ = fit(reward, loving_h(0, 40), loving_h(1, 20), samples)
    raw_policy = make(scalar_head=head)
    raw = build(raw_policy, updates=10, normalise=False)
    figures, _ = fit(raw, loving_h(0, 40), loving_h(1, 20), samples)
    values = policy.scalar("value", init_from="reward").values(samples.sequences).detach()
    last = samples.sequences.response_mask.sum(1)
    scores = reward.score(samples)
    torch.testing.assert_close(values[torch.arange(len(samples)), last], scores, rtol=0, atol=1e-4)
    unscaled = raw.score(samples)
    torch.testing.assert_close(scores, (unscaled - unscaled.mean()) / unscaled.std(correction=0), rtol=0, atol=1e-3)
    assert abs(float(unscaled.std(correction=0)) - 1) > 0.1, "or the unit would not show"
    same = {name: value for name, value in figures.metrics.items() if name != "length_correlation"}
    assert {name: report.metrics[name] for name in same} == same, "calibration is that of the raw margins"


def rated(rankings: list[Ranking], by: float) -> list[Ranking]:
    return [dataclasses.replace(r, scores=tuple(-by * rank for rank in r.ranks)) for r in rankings]


def test_the_margin_is_in_the_loss_that_is_fitted() -> None:
    """A fresh head scores 0: the first loss is log(1 + exp(m)) of each pair, averaged within rankings and over them."""
    policy = tiny.scratch()
    rankings = rated([r for r in loving_h(0, 20) if len(set(r.ranks)) > 1][:12], 0.5)
    _, lines = fit(build(policy, margin=2.0, updates=1, batch_size=12), rankings, [], baseline(policy))
    losses = []
    for r in rankings:
        pairs = [(a, b) for a in range(4) for b in range(4) if r.ranks[a] < r.ranks[b]]
        losses.append(sum(math.log1p(math.exp(2.0 * 0.5 * (r.ranks[b] - r.ranks[a]))) for a, b in pairs) / len(pairs))
    assert lines[0][2]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_a_margin_needs_ratings() -> None:
    policy = tiny.scratch()
    samples, some = baseline(policy), [*loving_h(0, 6), *rated(loving_h(1, 2), 1.0)]
    report, _ = fit(build(policy, margin=1.0, updates=1), some, [], samples)
    assert report.metrics["rankings_without_ratings"] == 6
    with pytest.raises(UserError, match=r"reward\.margin=0\.5 asks for a difference of ratings, and none of these"):
        fit(build(tiny.scratch(), margin=0.5), loving_h(0, 6), [], samples)
    with pytest.raises(UserError, match=r"reward\.margin=0\.5 is one of pairs: choose reward\.loss=bradley_terry"):
        build(tiny.scratch(), margin=0.5, loss="plackett_luce")


def test_other_ratings_are_another_reward_model() -> None:
    """They are margins, so that a fit is not shared where the ranks alone are the same."""
    plain, one, other = loving_h(0, 3), rated(loving_h(0, 3), 1.0), rated(loving_h(0, 3), 2.0)
    assert len({keys.of_rankings(rankings) for rankings in (plain, one, other)}) == 3
    assert keys.of_rankings(one) == keys.of_rankings(rated(loving_h(0, 3), 1.0))
