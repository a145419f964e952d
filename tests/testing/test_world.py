"""The tabular policy keeps the contract, and the world's exact figures are those of its samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alignbench import REFERENCE, Sampling, UserError
from alignbench.testing import BradleyTerry, TabularPolicy, World, WorldData, disguise, exact_kl, total_variation


@pytest.fixture
def world() -> World:
    return World(0, prompts=4, tokens=3)


def test_every_response_is_enumerated_once(world: World) -> None:
    completions = world.problem.completions
    assert len(set(completions)) == len(completions) == 1 + 3 * (1 + 3 * 4)
    torch.testing.assert_close(world.problem.reference.sum(1), torch.ones(4).double())
    raw = world.policy().logprobs(world.everything()).logprobs.double().sum(1).exp().reshape(4, -1)
    torch.testing.assert_close(raw.sum(1), torch.ones(4).double(), atol=1e-5, rtol=0)


def test_samples_follow_the_distribution(world: World) -> None:
    policy = world.policy(moved=0.5)
    batch = world.rollout(policy, 40_000, torch.Generator().manual_seed(0))
    rows, columns = world.index(batch.rollout.samples)
    counts = torch.zeros_like(world.problem.reference).index_put_((rows, columns), torch.tensor(1.0).double(), True)
    assert total_variation(counts / counts.sum(1, keepdim=True), world.distribution(policy)) < 0.03
    again = policy.logprobs(batch.rollout.samples.sequences).logprobs
    torch.testing.assert_close(batch.rollout.logprobs, again)
    assert torch.equal(batch.scores, world.problem.rewards[rows, columns].float())


def test_temperature_divides_the_logits(world: World) -> None:
    policy = world.policy()
    hot = policy.logprobs(world.everything(), temperature=2.0).logprobs
    policy.scale_logits(0.5)
    torch.testing.assert_close(policy.logprobs(world.everything()).logprobs, hot)


def test_padding_is_not_read(world: World) -> None:
    policy = world.policy(moved=0.5)
    policy.logits.requires_grad_(False)
    plain = world.everything()
    other = disguise(plain, left=2, right=3, rng=torch.Generator().manual_seed(0))
    assert not torch.equal(other.response_ids[:, :3], plain.response_ids)
    one, two = (policy.logprobs(s, entropy=True) for s in (plain, other))
    assert torch.equal(one.logprobs, two.logprobs[:, :3])
    assert float(two.logprobs[~other.response_mask].abs().max()) == 0
    assert one.entropy is not None
    assert two.entropy is not None
    assert torch.equal(one.entropy, two.entropy[:, :3])
    values = policy.role("reward").values(other)
    inside = torch.arange(values.shape[1])[None] <= other.response_mask.sum(1, keepdim=True)
    assert torch.equal(values[:, :4][inside[:, :4]], policy.role("reward").values(plain)[inside[:, :4]])
    assert float(values.detach()[~inside].abs().min()) >= 1e4


def test_responses_survive_text_and_files(world: World, tmp_path: Path) -> None:
    policy = world.policy(moved=0.5)
    samples = policy.generate(world.prompts, Sampling(), n=8, rng=torch.Generator().manual_seed(0)).samples
    again = policy.encode(samples.prompts, samples.texts, finished=samples.finished.tolist())
    assert torch.equal(again.sequences.response_ids, samples.sequences.response_ids)
    assert again.texts == samples.texts
    assert torch.equal(again.finished, samples.finished)
    other = world.policy()
    other.load(policy.save(tmp_path))
    assert torch.equal(other.logits, policy.logits)


def test_the_reference_stands_still(world: World) -> None:
    policy = world.policy(moved=0.5)
    torch.testing.assert_close(world.distribution(policy, REFERENCE), world.problem.reference)
    assert exact_kl(world.distribution(policy), world.problem.reference) > 0.01
    with pytest.raises(UserError, match="freeze_reference"):
        fresh = TabularPolicy(world.prompts, seeds=world.seeds)
        fresh.logprobs(world.everything(), role=REFERENCE)


def test_pairs_and_rankings_follow_bradley_terry(world: World) -> None:
    rng = torch.Generator().manual_seed(0)
    pairs = world.pairs(4000, rng)
    assert pairs.probability is not None
    mean = float(pairs.probability.mean())
    spread = float((pairs.probability * (1 - pairs.probability)).mean())
    assert mean == pytest.approx(1 - 2 * spread, abs=0.02), "P(chosen) is drawn with that very probability"
    annotator = BradleyTerry(world, seeds=world.seeds)
    data = WorldData(world)
    right = total = 0.0
    for ranking in world.rankings(1500, 2, rng, annotator):
        first, second = ranking.responses
        if ranking.responses[0] != ranking.responses[1]:
            p = annotator.preference(ranking.prompt, first, second, finished=ranking.finished)  # type: ignore[arg-type]
            assert p is not None
            right, total = right + (ranking.ranks[0] < ranking.ranks[1]) - p, total + 1
    assert abs(right / total) < 0.05
    assert data.judge(world.prompts[0], "a", finished=True) is not None
