"""What feeds an optimizer: how many batches, of what, in which order."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from alignbench import (
    AlignbenchError,
    Annotator,
    Demonstration,
    NonFiniteError,
    OptimizerConfig,
    PreferenceConfig,
    PreferencePair,
    Prompt,
    Ranking,
    RewardParts,
    RewardSource,
    RolloutConfig,
    Samples,
    Sampling,
    Seeds,
    UserError,
)
from alignbench.app.config import RankingsSettings
from alignbench.pipeline.data import set_aside
from alignbench.pipeline.experience import (
    collect_rankings,
    demonstration_batches,
    fitting,
    labelled_pairs,
    pair_data,
    planned_updates,
    preference_batches,
    rollout_batches,
)
from alignbench.pipeline.stages import Rankings, gather_rankings
from alignbench.pipeline.training import part_means
from alignbench.scoring import checked_scores, scored
from tests import tiny

SEEDS = Seeds(0).child("test")


class Scores(RewardSource):
    """A reward source that gives what a function makes of the samples."""

    def __init__(self, function: Callable[[Samples], Tensor]) -> None:
        self.function = function

    def score(self, samples: Samples) -> Tensor:
        return self.function(samples)


LENGTH = Scores(lambda samples: samples.sequences.response_mask.sum(1).float())


class ByLength(Annotator):
    """Shorter is better; sure of it where the longer response was cut off."""

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        return tuple(sum(len(other) < len(response) for other in responses) for response in responses)

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float | None:
        return 1.0 if finished == (True, False) else 0.75


class Recorded(Annotator):
    samples_responses = False

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        self.rankings = rankings

    def recorded(self) -> Sequence[Ranking]:
        return self.rankings


def rollouts(
    policy: tiny.HFPolicy, *, reward: RewardSource = LENGTH, updates: int = 3, seeds: Seeds = SEEDS, **options: object
):
    config = RolloutConfig(**{"batch_size": 4, **options})
    return rollout_batches(policy, reward, tiny.PROMPTS, config, updates=updates, seeds=seeds)


# How many


@pytest.mark.parametrize(
    ("updates", "passes", "batch_size", "rows", "planned"),
    [
        (7, 0, 4, 100, 7),
        (7, 9, 4, 100, 7),
        (0, 1, 4, 100, 25),
        (0, 2.5, 4, 100, 62),
        (0, 0.01, 4, 100, 1),
        (0, 1, 64, 3, 1),
    ],
)
def test_planned_updates(updates: int, passes: float, batch_size: int, rows: int, planned: int) -> None:
    assert planned_updates(OptimizerConfig(updates=updates, passes=passes, batch_size=batch_size), rows) == planned


def test_only_prompts_that_fit_the_window() -> None:
    policy = tiny.scratch(max_prompt_tokens=3)
    kept = fitting(policy, tiny.PROMPTS)
    assert [prompt.id for prompt in kept] == ["a", "e f", "c c", "a b"], (
        "its letters and the token that ends the prompt"
    )


# Demonstrations


def test_every_demonstration_once_before_any_again() -> None:
    demonstrations = [Demonstration(tiny.prompt(letter), letter) for letter in "abcdef"]
    policy = tiny.scratch()
    config = OptimizerConfig(batch_size=4)
    batches = list(demonstration_batches(policy, demonstrations, config, updates=3, seeds=SEEDS))
    assert [len(batch.sequences) for batch in batches] == [4, 4, 4]
    seen = torch.cat([batch.sequences.response_ids[:, 0] for batch in batches])
    assert set(Counter(seen.tolist()).values()) == {2}, "two passes in three batches"
    assert len(set(seen[:6].tolist())) == 6
    for batch in batches:
        assert torch.equal(batch.sequences.prompt_ids[:, -2], batch.sequences.response_ids[:, 0]), "rows stay together"
        assert (batch.sequences.response_ids[:, 1] == tiny.EOS).all()


def test_order_depends_on_the_seed() -> None:
    demonstrations = [Demonstration(tiny.prompt(letter), letter) for letter in "abcdef"]
    policy, config = tiny.scratch(), OptimizerConfig(batch_size=6)

    def order(seed: int) -> list[int]:
        (batch,) = demonstration_batches(policy, demonstrations, config, updates=1, seeds=Seeds(seed))
        return batch.sequences.response_ids[:, 0].tolist()

    assert order(0) == order(0)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


# Rollouts


def test_rollouts_keep_the_responses_to_a_prompt_together() -> None:
    for batch in rollouts(tiny.scratch(), batch_size=6, samples_per_prompt=3):
        ids = [prompt.id for prompt in batch.rollout.samples.prompts]
        assert len(ids) == 6
        assert len(set(ids[:3])) == len(set(ids[3:])) == 1 != len(set(ids))
        assert torch.equal(batch.scores, LENGTH.score(batch.rollout.samples))


def test_every_prompt_is_asked_once_before_any_again() -> None:
    asked = [p.id for batch in rollouts(tiny.scratch(), batch_size=2) for p in batch.rollout.samples.prompts]
    assert sorted(asked) == sorted(prompt.id for prompt in tiny.PROMPTS)


def test_rollouts_are_sampled_from_the_policy_as_it_stands() -> None:
    policy = tiny.scratch()
    for batch in rollouts(policy, updates=3, batch_size=6):
        sequences = batch.rollout.samples.sequences
        with torch.no_grad():
            assert torch.allclose(batch.rollout.logprobs, policy.logprobs(sequences).logprobs, atol=1e-5)
            tiny.move(policy)
            assert not torch.allclose(batch.rollout.logprobs, policy.logprobs(sequences).logprobs, atol=1e-2)


def test_rollouts_repeat_with_the_seed_and_nothing_is_sampled_ahead() -> None:
    def ids(seeds: Seeds, updates: int = 2) -> list[list[int]]:
        return [
            b.rollout.samples.sequences.response_ids.tolist()
            for b in rollouts(tiny.scratch(), seeds=seeds, updates=updates)
        ]

    assert ids(SEEDS) == ids(SEEDS)
    assert ids(SEEDS) != ids(SEEDS.child("other"))
    assert ids(SEEDS, 2) == list(islice(ids(SEEDS, 5), 2)), "the number of updates shifts nothing"
    policy = tiny.scratch()
    generate, calls = policy.generate, []
    policy.generate = lambda *args, **kwargs: calls.append(args) or generate(*args, **kwargs)  # type: ignore[method-assign]
    batches = rollouts(policy)
    assert len(calls) == 0
    next(batches)
    assert len(calls) == 1


def test_temperature_of_the_rollouts() -> None:
    (cold,) = rollouts(tiny.scratch(), updates=1, batch_size=6, temperature=0.01)
    assert cold.rollout.temperature == 0.01
    assert cold.rollout.logprobs.mean() > -0.1, "nearly greedy"
    (warm,) = rollouts(tiny.scratch(), updates=1, batch_size=6)
    assert warm.rollout.logprobs.mean() < -0.5


# Scores


def test_scores_are_float32_and_without_gradient() -> None:
    policy = tiny.scratch()
    samples = policy.generate(tiny.PROMPTS, Sampling(), rng=torch.Generator()).samples
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    scores = checked_scores(Scores(lambda s: weight * torch.arange(len(s))), samples)
    assert (scores.dtype, scores.requires_grad) == (torch.float32, False)
    assert scores.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("shape", [(6, 1), (1, 6), (5,), ()])
def test_scores_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    samples = tiny.scratch().generate(tiny.PROMPTS, Sampling(), rng=torch.Generator()).samples
    with pytest.raises(UserError, match="6 responses"):
        checked_scores(Scores(lambda _: torch.zeros(shape)), samples)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_scores_that_are_not_finite_are_refused(value: str) -> None:
    samples = tiny.scratch().generate(tiny.PROMPTS, Sampling(), rng=torch.Generator()).samples
    with pytest.raises(NonFiniteError, match=r"the reward .*1 of 6"):
        checked_scores(Scores(lambda s: torch.tensor([float(value)] + [0.0] * (len(s) - 1))), samples)


class Sums(Scores):
    """Its score is a sum of parts; asked for the sum itself it would do its work twice."""

    def __init__(self, parts: Callable[[Samples], RewardParts]) -> None:
        super().__init__(lambda samples: pytest.fail("asked for its scores beside their parts"))
        self.parts = parts

    def score_parts(self, samples: Samples) -> RewardParts:
        return self.parts(samples)


def two(samples: Samples) -> RewardParts:
    rows = torch.arange(len(samples), dtype=torch.float64, requires_grad=True)
    return RewardParts(("row", "one"), (2.0, -0.5), torch.stack([rows, torch.ones_like(rows)], 1))


def test_parts_of_a_score_come_with_the_rollout_and_add_up_to_it() -> None:
    (batch,) = rollouts(tiny.scratch(), reward=Sums(two), updates=1, batch_size=6)
    assert batch.parts is not None
    assert (batch.parts.values.dtype, batch.parts.values.requires_grad) == (torch.float32, False)
    assert batch.scores.tolist() == [2 * row - 0.5 for row in range(6)]
    assert part_means(batch) == {"reward/row": 2.5, "reward/one": 1.0}
    chosen = batch.parts.select(torch.tensor([4, 1]))
    assert chosen.total().tolist() == [7.5, 1.5]
    (plain,) = rollouts(tiny.scratch(), updates=1, batch_size=6)
    assert plain.parts is None and part_means(plain) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"names": ("row", "row")}, "2 weights for the parts row, row"),
        ({"names": (), "weights": ()}, r"0 weights for the parts \(none\)"),
        ({"weights": (1.0,)}, "1 weights for the parts row, one"),
        ({"values": torch.zeros(6, 3)}, r"shape \(6, 3\) for 6 responses and 2 parts"),
        ({"values": torch.zeros(2, 6)}, r"shape \(2, 6\) for 6 responses and 2 parts"),
        ({"values": torch.full((6, 2), math.nan)}, r"a part of the reward .*12 of 12"),
    ],
)
def test_parts_that_are_not_parts_are_refused(change: dict[str, Any], told: str) -> None:
    rollout = tiny.scratch().generate(tiny.PROMPTS, Sampling(), rng=torch.Generator())
    with pytest.raises(AlignbenchError, match=told):
        scored(Sums(lambda samples: dataclasses.replace(two(samples), **change)), rollout)


# Preferences


def pair(chosen: str, rejected: str, probability: float | None = 0.5, **more: object) -> PreferencePair:
    return PreferencePair(tiny.prompt(chosen), chosen, rejected, probability, **more)  # type: ignore[arg-type]


class Reading(PreferenceConfig):
    """An algorithm that asks no reference."""

    uses_reference = False


def batches_of(pairs: Sequence[PreferencePair], policy: tiny.HFPolicy | None = None, *, size: int, updates: int = 1):
    config = Reading(batch_size=size)
    return preference_batches(pair_data(policy or tiny.scratch(), pairs, config), config, updates=updates, seeds=SEEDS)


def test_pairs_bring_what_the_reference_thinks_of_them() -> None:
    """The reference as it was frozen, summed over the tokens of each response, row by row."""
    policy = tiny.scratch()
    policy.freeze_reference()
    pairs = [pair(c, r) for c, r in (("a b", "c"), ("d", "e f g"), ("h h", "a"))]
    wanted = {
        text: float(policy.logprobs(policy.encode([tiny.prompt(p.chosen)], [text]).sequences).logprobs.detach().sum())
        for p in pairs
        for text in (p.chosen, p.rejected)
    }
    tiny.move(policy)
    data = pair_data(policy, pairs, PreferenceConfig(batch_size=3))
    (batch,) = preference_batches(data, PreferenceConfig(batch_size=3), updates=1, seeds=SEEDS)
    for side, found in ((batch.chosen, batch.ref_chosen), (batch.rejected, batch.ref_rejected)):
        assert found is not None
        texts = policy.tokenizer.batch_decode(
            [row[: int(mask.sum())].tolist() for row, mask in zip(side.response_ids, side.response_mask, strict=True)],
            skip_special_tokens=True,
        )
        torch.testing.assert_close(found, torch.tensor([wanted[text] for text in texts]), rtol=1e-5, atol=1e-5)


def test_pairs_that_truncation_makes_alike_are_dropped_and_counted() -> None:
    policy = tiny.scratch(max_response_tokens=3)
    pairs = [pair("a", "b"), pair("a a a a", "a a a b"), pair("c c c c c", "d")]
    data = pair_data(policy, pairs, Reading())
    assert data.counts == {"pairs": 2, "pairs_truncated": 1, "pairs_dropped": 1}
    assert len(data.pairs) == 2
    with pytest.raises(UserError, match="max_response_tokens=3"):
        pair_data(policy, pairs[1:2], Reading())


def test_best_against_worst() -> None:
    ranking = Ranking(tiny.prompt("a"), ("b", "c", "d"), (1, 0, 2))
    assert [(p.chosen, p.rejected) for p in labelled_pairs([ranking], ByLength(), "best_worst")] == [("c", "d")]
    with pytest.raises(UserError, match="all, best_worst"):
        PreferenceConfig(pairs="some")


def test_pairs_stay_together() -> None:
    pairs = [pair(c, r, i / 10) for i, (c, r) in enumerate(("ab", "cd", "ef", "gh"))]
    policy = tiny.scratch()
    ids = {letter: policy.tokenizer.convert_tokens_to_ids(letter) for letter in "abcdefgh"}
    batches = list(batches_of(pairs, policy, size=2, updates=2))
    seen = []
    for batch in batches:
        assert torch.equal(batch.chosen.prompt_ids, batch.rejected.prompt_ids)
        assert batch.probability is not None
        for chosen, rejected, label in zip(
            batch.chosen.response_ids[:, 0], batch.rejected.response_ids[:, 0], batch.probability, strict=True
        ):
            (which,) = (p for p in pairs if ids[p.chosen] == int(chosen))
            assert ids[which.rejected] == int(rejected)
            assert which.probability == pytest.approx(float(label))
            seen.append(which)
    assert len(seen) == len({p.chosen for p in seen}) == 4


def test_responses_that_were_cut_off_get_no_end() -> None:
    pairs = [pair("a", "b", finished=(True, False))]
    (batch,) = batches_of(pairs, size=1)
    assert (batch.chosen.response_mask.sum(), batch.rejected.response_mask.sum()) == (2, 1)


def test_probabilities_are_given_only_where_all_are_known() -> None:
    pairs = [pair("a", "b", 0.5), pair("c", "d", None)]
    (batch,) = batches_of(pairs, size=2)
    assert batch.probability is None


def test_no_pairs_at_all() -> None:
    """Every ranking was a tie: without the check the batches would be sought for ever."""
    with pytest.raises(UserError, match="nothing to learn from"):
        pair_data(tiny.scratch(), [], PreferenceConfig())


def test_labels_come_from_the_annotator_who_knows_what_was_cut_off() -> None:
    ranking = Ranking(tiny.prompt("a"), ("b", "c", "d"), (1, 0, 2), (True, True, False))
    labelled = labelled_pairs([ranking], ByLength())
    assert [(p.chosen, p.rejected, p.probability) for p in labelled] == [
        ("c", "b", 0.75),
        ("c", "d", 1.0),
        ("b", "d", 1.0),
    ]


# Rankings


def test_rankings_of_sampled_responses() -> None:
    policy = tiny.scratch()
    rng = torch.Generator().manual_seed(3)
    rankings = collect_rankings(policy, ByLength(), tiny.PROMPTS, responses=4, temperature=1.0, rng=rng)
    same = policy.generate(tiny.PROMPTS, Sampling(), n=4, rng=torch.Generator().manual_seed(3)).samples
    assert [ranking.prompt for ranking in rankings] == list(tiny.PROMPTS)
    assert [text for ranking in rankings for text in ranking.responses] == list(same.texts)
    assert [end for ranking in rankings for end in ranking.finished] == same.finished.tolist()
    assert len(set(same.finished.tolist())) == 2, "some of these responses were cut off"
    for ranking in rankings:
        assert ranking.ranks == ByLength().rank(ranking.prompt, ranking.responses, finished=ranking.finished)


def gather(annotator: Annotator, evaluation: frozenset[str] = frozenset(), **settings: object):
    wanted = RankingsSettings(**{"prompts": 6, "responses": 2, **settings})
    return gather_rankings(wanted, annotator, tiny.scratch(), tiny.PROMPTS, evaluation, seeds=SEEDS)


def test_a_share_of_the_sampled_rankings_is_held_out() -> None:
    found = gather(ByLength(), held_out=0.3)
    train, held_out = ({r.prompt.id for r in part} for part in (found.train, found.held_out))
    assert (len(train), len(held_out)) == (4, 2)
    assert not train & held_out
    assert len(gather(ByLength(), prompts=3).train) == 2


def recorded(*prompts: str) -> Recorded:
    return Recorded([Ranking(tiny.prompt(text), ("a", "b"), (0, 1)) for text in prompts])


def test_recorded_rankings_of_evaluation_prompts_are_held_out() -> None:
    found = gather(recorded("a", "b", "a", "c"), frozenset({"a", "x"}))
    assert [r.prompt.id for r in found.train] == ["b", "c"]
    assert [r.prompt.id for r in found.held_out] == ["a", "a"]


def test_rankings_of_one_prompt_never_lie_on_both_sides() -> None:
    found = gather(recorded("a", "b", "a", "c", "b", "a"), held_out=0.5)
    train, held_out = ({r.prompt.id for r in part} for part in (found.train, found.held_out))
    assert train and held_out and not train & held_out
    assert len(found.train) + len(found.held_out) == 6


def test_recorded_rankings_that_do_not_fit_are_left_out() -> None:
    long = "a b c d e f g h"
    found = gather(recorded("a", long, "b", long))
    assert {r.prompt.id for r in (*found.train, *found.held_out)} == {"a", "b"}
    assert found.over_window == 2
    with pytest.raises(UserError, match="1 rankings"):
        gather(recorded("a", long))


def test_what_is_set_aside_of_rankings_is_counted_and_said() -> None:
    policy = tiny.scratch(max_response_tokens=3)
    train = (
        Ranking(tiny.prompt("a"), ("b", "c c c c c"), (0, 1)),
        Ranking(tiny.prompt("b"), ("a", "h h h h h"), (0, 1), (True, False)),
        Ranking(tiny.prompt("c"), ("a", "b"), (0, 0)),
    )
    counts = set_aside.of_rankings(policy, Rankings(train, (), over_window=2))
    assert counts == {
        "rankings": 5, "rankings_over_window": 2, "rankings_without_pairs": 1, "responses": 6, "responses_truncated": 1,
    }  # fmt: skip
    assert set_aside.lines(counts, policy) == [
        f"  2 of 5 rankings set aside, their prompt over {policy.max_prompt_tokens} tokens",
        "  1 of 5 rankings say nothing: all ties, or responses that are the same",
        "  1 of 6 ranked responses cut at 3 tokens",
    ]
    said = set_aside.lines({"pairs": 2, "pairs_truncated": 1, "pairs_dropped": 1}, policy)
    assert said == [
        "  1 of 3 pairs dropped, alike once cut at 3 tokens",
        "  1 of 3 pairs have a response that is cut at 3 tokens",
    ]
    assert set_aside.of_rankings(policy, None) == {}
