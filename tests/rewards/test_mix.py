"""Mixtures: weights, standardising on the SFT model's responses, clipping, and one part that is fitted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_rewards.config import MixConfig
from alignbench_rewards.mix import MixReward

from alignbench import REFERENCE, DataSource, Prompt, Samples, Sampling, Seeds, Split, UserError, Verdict
from alignbench.testing import Status
from tests import tiny
from tests.core.harness import SMALL, command, records
from tests.rewards.kit import conforms
from tests.rewards.test_learned import LovesH, loving_h


class Truth(DataSource):
    """10 for each h."""

    known = True

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return (*tiny.PROMPTS, tiny.prompt("a b c d e f g h"))  # the last is longer than the policy reads

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        return Verdict(10.0 * response.count("h")) if self.known else None


class Untold(Truth):
    known = False


def policy(seed: int = 0) -> HFPolicy:
    made = tiny.scratch(seed)
    made.freeze_reference()
    return made


def build(model: HFPolicy | None = None, *, seed: int = 0, **settings: Any) -> MixReward:
    return MixReward(MixConfig(**settings), policy=model or policy(), data=Truth(), seeds=Seeds(seed))


def given(model: HFPolicy) -> Samples:
    return model.encode(tiny.PROMPTS[:4], ["h", "a b c", "h h", ""])


GOLD = torch.tensor([10.0, 0.0, 20.0, 0.0])
LENGTH = 0.1 * torch.tensor([2.0, 4.0, 3.0, 1.0])


def test_without_standardising_it_is_the_weighted_sum() -> None:
    model = policy()
    mix = build(model, parts={"gold": 0.5, "length": -2.0}, standardise=False)
    torch.testing.assert_close(mix.score(given(model)), 0.5 * GOLD - 2 * LENGTH)
    clipped = build(model, parts={"gold": 0.5, "length": -2.0}, standardise=False, clip=0.3)
    torch.testing.assert_close(clipped.score(given(model)), 0.5 * GOLD.clamp(max=0.3) - 2 * LENGTH.clamp(max=0.3))


def test_it_gives_its_parts_by_name_before_they_are_weighed() -> None:
    model = policy()
    mix = build(model, parts={"gold": 0.5, "length": -2.0}, standardise=False, clip=15.0)
    parts = mix.score_parts(given(model))
    assert (parts.names, parts.weights) == (("gold", "length"), (0.5, -2.0))
    torch.testing.assert_close(parts.values, torch.stack([GOLD.clamp(max=15.0), LENGTH], 1))
    assert torch.equal(parts.total(), mix.score(given(model)))


def test_a_run_logs_each_part_and_gdpo_learns_from_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = command(
        capfd, "algo=gdpo", "algo.updates=1", "reward=mix", "reward.parts={gold:1,length:-0.2}", "reward.standardise=false",
        f"results_dir={tmp_path}", "cache=false", *SMALL,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "no parts" not in done.err + done.out
    (log,) = [path for path in tmp_path.rglob("train.jsonl") if "sft" not in path.parent.name]
    line = json.loads(log.read_text().splitlines()[-1])
    assert line["reward"] == pytest.approx(line["reward/gold"] - 0.2 * line["reward/length"], rel=1e-4)


def test_each_part_is_standardised_on_the_sft_model_and_not_on_the_batch() -> None:
    model = policy()
    before = build(model, parts={"gold": 1.0, "length": 0.5}, baseline=2000).score(given(model))
    mix = build(model, parts={"gold": 1.0, "length": 0.5}, baseline=2000)
    tiny.move(model, scale=1.0)  # training has begun: the SFT model is the reference
    found = mix.score(given(model))
    assert torch.equal(found, before)
    prompts = tiny.PROMPTS * 500
    fresh = model.generate(prompts, Sampling(), role=REFERENCE, rng=torch.Generator().manual_seed(7)).samples
    expected = torch.zeros(4)
    for weight, scores, of_fresh in (
        (1.0, GOLD, torch.tensor([10.0 * text.count("h") for text in fresh.texts])),
        (0.5, LENGTH, 0.1 * fresh.sequences.response_mask.sum(1).float()),
    ):
        expected += weight * (scores - of_fresh.mean()) / of_fresh.std()
    torch.testing.assert_close(found, expected, rtol=0.15, atol=0.1)  # both are figures of thousands
    torch.testing.assert_close(mix.score(given(model).select(torch.tensor([2]))), found[2:3])
    assert torch.equal(build(model, parts={"gold": 1.0, "length": 0.5}, baseline=2000).score(given(model)), found)


def test_one_source_may_take_part_twice() -> None:
    model = policy()
    mix = build(
        model,
        parts={"length": 1.0, "brevity": 1.0},
        options={"brevity": {"component": "length", "scale": -0.3}},
        standardise=False,
    )
    torch.testing.assert_close(mix.score(given(model)), -2 * LENGTH)


def test_a_part_that_says_nothing_cannot_be_standardised() -> None:
    same = {"same": {"component": "function", "target": "tests.rewards.test_mix:same"}}
    with pytest.raises(UserError, match=r"reward\.parts\.same gives .* all the same score .3.*standardise=false"):
        build(parts={"same": 1.0}, options=same).score(given(policy()))


def same(prompt: str, response: str) -> float:
    return 3.0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, r"mixes nothing: give weights, as in reward\.parts="),
        ({"parts": {"goold": 1.0}}, "Unknown reward 'goold'.*Did you mean 'gold'"),
        ({"parts": {"mix": 1.0}}, "itself a mixture"),
        ({"parts": {"gold": 1.0}, "options": {"god": {}}}, "Unknown part 'god' in reward.options.*Did you mean 'gold'"),
        (
            {"parts": {"length": 1.0}, "options": {"length": {"scael": 1}}},
            r"Unknown key 'scael' in reward\.options\.length\. Did you mean 'scale'",
        ),
        (
            {"parts": {"length": 1.0}, "options": {"length": {"scale": "x"}}},
            r"^reward\.options\.length\.scale=x must be",
        ),
        (
            {"parts": {"length": 1.0}, "options": {"length": {"scale": 0}}},
            r"^reward\.options\.length\.scale=0\.0 must be -10000 to 10000, other",
        ),
        (
            {"parts": {"learned": 1.0, "other": 1.0}, "options": {"other": {"component": "learned"}}},
            "learned and other are both fitted",
        ),
    ],
)
def test_what_cannot_be_mixed_is_told_before_a_model_is_loaded(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        MixReward.check_data(MixConfig(**settings), Truth())


def test_data_that_cannot_serve_a_part_is_refused() -> None:
    with pytest.raises(UserError, match="reward=gold needs data that knows the truth"):
        MixReward.check_data(MixConfig(parts={"length": 1.0, "gold": 1.0}), Untold())


# A part that is fitted

LEARNED: dict[str, Any] = {
    "parts": {"learned": 1.0, "length": -0.5},
    "options": {"learned": {"learning_rate": 1e-2, "updates": 30, "batch_size": 16}},
}


def test_it_needs_rankings_where_a_part_does() -> None:
    assert MixReward.needs_rankings(MixConfig(**LEARNED))
    assert not MixReward.needs_rankings(MixConfig(parts={"gold": 1.0, "length": 1.0}))


def fitted(model: HFPolicy, lines: list[int]) -> MixReward:
    mix = build(model, **LEARNED)
    baseline = model.generate(tiny.PROMPTS, Sampling(), n=8, rng=torch.Generator().manual_seed(5)).samples
    report = mix.fit(
        loving_h(0, 100),
        loving_h(1, 40),
        baseline,
        annotator=LovesH(),
        progress=lambda update, updates, metrics, state=None: lines.append(update),
    )
    assert report.metrics["learned/held_out_accuracy"] > 0.9
    assert report.summary.startswith("learned: held-out accuracy")
    return mix


def test_a_fitted_part_is_fitted_saved_and_loaded_within_it(tmp_path: Path) -> None:
    model, lines = policy(), []
    mix = fitted(model, lines)
    assert lines == list(range(1, 31))
    same_length = model.encode(tiny.PROMPTS[:2], ["h h", "b a"])
    scores = mix.score(same_length)
    assert scores[0] > scores[1]
    mix.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"learned"}
    other = build(policy(), **LEARNED)
    assert not torch.allclose(other._parts["learned"].score(same_length), mix._parts["learned"].score(same_length))
    other.load(tmp_path)
    torch.testing.assert_close(other.score(same_length), scores)


def test_its_fingerprint_is_that_of_its_parts() -> None:
    one, other, more = (
        build(parts={"length": 1.0}, options={"length": {"scale": scale}}).fingerprint() for scale in (0.1, 0.2, 0.1)
    )
    assert one == more != other


def test_what_its_parts_report_goes_by_their_names() -> None:
    mix = build(parts={"length": 1.0})
    mix._parts["length"].report = lambda: {"requests": 3.0}  # type: ignore[method-assign]
    assert mix.report() == {"length/requests": 3.0}


@dataclass
class Still(MixConfig):
    """Nothing in it is fitted."""

    parts: dict[str, float] = field(default_factory=lambda: {"length": -0.5, "gold": 1.0})
    baseline: int = 32
    clip: float = 2.0


@dataclass
class Fitted(Still):
    """One part is fitted."""

    parts: dict[str, float] = field(default_factory=lambda: {"length": -0.01, "learned": 1.0})
    options: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"learned": {"updates": 60, "batch_size": 32, "learning_rate": 0.1}}
    )
    clip: float = 0.0


def test_it_conforms() -> None:
    conforms("mix", Still)
    found = conforms("mix", Fitted)
    assert found["saved_and_loaded_it_scores_alike"] is found["fitting_predicts_rankings"] is Status.OK


@pytest.mark.parametrize("learned", [True, False])
def test_a_run_collects_rankings_only_where_a_part_learns_from_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], learned: bool
) -> None:
    parts = "{length:-0.2,learned:1}" if learned else "{length:-0.2,gold:1}"
    more = ["reward.options.learned.updates=2"] if learned else []
    done = command(
        capfd, "algo=rloo", "algo.updates=1", "reward=mix", f"reward.parts={parts}", "reward.baseline=16", *more,
        f"results_dir={tmp_path}", "cache=false", *SMALL,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert ("reward/learned/rankings" in records(tmp_path)[0]["reports"]) is learned
    assert bool(list(tmp_path.rglob("reward/learned/scalar.safetensors"))) is learned
    assert bool(list(tmp_path.rglob("rankings.jsonl"))) is learned
