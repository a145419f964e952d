"""Checks of what an algorithm is fed: what `pipeline.experience` makes for its config of prompts, pairs, labels and demonstrations,
whose truth is known here."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alignbench.optimizer_config import LabelConfig, PreferenceConfig, RolloutConfig
from alignbench.pipeline import experience
from alignbench.plugins import Component
from alignbench.records import REFERENCE, Consumes, Demonstration, Labelled, PreferencePair, Sequences
from alignbench.records.batches import LabelledBatch, PreferenceBatch
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.tabular import TabularPolicy
from alignbench.testing.trial import settings
from alignbench.testing.world import World, WorldReward

PAIRS, PROMPTS, BATCHES = 24, 12, 5

check = CheckList()
Feed = Callable[[int], Iterator[Any]]
"""Batches from the one of that number on."""


def _world(seed: int) -> tuple[World, TabularPolicy]:
    world = World(seed, prompts=PROMPTS, tokens=2)
    return world, world.policy(moved=0.5)


def pairs(world: World, seed: int) -> list[PreferencePair]:
    """Every third is alike once it is cut at the policy's two tokens; each has a probability of its own."""
    rng, found = Seeds(seed).python("pairs"), []
    for number in range(PAIRS):
        first, second = rng.sample(("a", "b", "c", "a b", "b a", "c c", ""), 2)
        if number % 3 == 1:
            first, second = "a b c", "a b a"
        prompt = world.prompts[number % len(world.prompts)]
        found.append(PreferencePair(prompt, first, second, (number + 1) / (PAIRS + 1), (rng.random() < 0.8, True)))
    return found


def feed(component: Component, seed: int, prompts: int = PROMPTS) -> Feed:
    """What the core feeds it; of prompts, the first so many."""
    world, policy = _world(seed)
    config: Any = settings(component, rows=8, updates=BATCHES)
    seeds = Seeds(seed).child("experience")
    if config.consumes is Consumes.DEMONSTRATIONS:
        shown = [(p, t) for p in world.prompts for t in ("a", "b", "c a")]
        told = [Demonstration(*row) for row in shown]
        return lambda start: experience.demonstration_batches(
            policy, told, config, updates=BATCHES, seeds=seeds, start=start
        )
    if isinstance(config, PreferenceConfig):
        data = experience.pair_data(policy, pairs(world, seed), config)
        return lambda start: experience.preference_batches(data, config, updates=BATCHES, seeds=seeds, start=start)
    if isinstance(config, LabelConfig):
        labels = experience.labels_of_pairs(policy, pairs(world, seed), config)
        return lambda start: experience.labelled_batches(labels, config, updates=BATCHES, seeds=seeds, start=start)
    if isinstance(config, RolloutConfig):
        return lambda start: experience.rollout_batches(
            policy, WorldReward(world), world.prompts[:prompts], config, updates=BATCHES, seeds=seeds, start=start
        )
    raise NotApplicable("it is fed nothing")


def _sequences(batch: Any) -> Sequences:
    if hasattr(batch, "rollout"):
        return batch.rollout.samples.sequences  # type: ignore[no-any-return]
    return batch.chosen if isinstance(batch, PreferenceBatch) else batch.sequences


def _rows(sequences: Sequences) -> list[tuple[int, ...]]:
    """Prompt and response of each row, as token ids."""
    rows = zip(sequences.prompt_ids, sequences.prompt_mask.bool(), sequences.response_ids, sequences.response_mask.bool(), strict=True)  # fmt: skip
    return [(*prompt[a].tolist(), -1, *response[b].tolist()) for prompt, a, response, b in rows]


@check(causes="a generator that is made anew for each batch, or an order that is drawn once.")
def batches_are_drawn_anew(component: Component, seed: int) -> None:
    """Batches that follow one another are not the same, the same seeds give the same ones, and those after a pause are those that would
    have come."""
    rollouts = isinstance(component.config(), RolloutConfig)
    for feeding in (feed(component, seed), *([feed(component, seed, prompts=1)] if rollouts else [])):
        _drawn_anew(feeding)


def _drawn_anew(feeding: Feed) -> None:
    whole, again, later = (list(map(_rows, map(_sequences, feeding(start)))) for start in (0, 0, 2))
    if len(whole) != BATCHES or whole != again:
        raise PropertyBroken(f"There were {len(whole)} batches of {BATCHES}, or others the second time.")
    if any(one == other for one, other in itertools.pairwise(whole)):
        raise PropertyBroken("Two batches that follow one another are the same.")
    if later != whole[2:]:
        raise PropertyBroken("After two batches, going on gives others than never having stopped.")


@check(causes="rows drawn with replacement, or those that a batch left over at the end of a pass.")
def nothing_comes_twice_before_all_came(component: Component, seed: int) -> None:
    """Each prompt, pair, label or demonstration comes once before any comes again."""
    seen: Counter[Any] = Counter()
    for batch in feed(component, seed)(0):
        sequences = _sequences(batch)
        rows: Sequence[Any] = _rows(sequences)
        if hasattr(batch, "rollout"):
            rows = [prompt.id for prompt in batch.rollout.samples.prompts]
        elif isinstance(batch, PreferenceBatch):
            assert batch.probability is not None
            rows = [round(p, 5) for p in batch.probability.tolist()]
        elif isinstance(batch, LabelledBatch):
            raise NotApplicable("labels of one response may be many")
        seen.update(rows)
    together = int(getattr(settings(component, rows=8), "samples_per_prompt", 1))
    if max(seen.values()) - min(seen.values()) > together or len(seen) < min(sum(seen.values()) // together, PROMPTS):
        raise PropertyBroken(
            f"Of {len(seen)} one came {max(seen.values())} times where another came {min(seen.values())} times."
        )


@check(
    causes="pairs that are dropped and leave their probability behind, sides exchanged, or the reference's numbers of another row."
)
def pairs_keep_what_is_known_of_them(component: Component, seed: int) -> None:
    """Where some pairs are dropped, the others keep their own probability, their sides, and what the reference says of each."""
    world, policy = _world(seed)
    config: Any = settings(component, rows=8)
    if not isinstance(config, PreferenceConfig):
        raise NotApplicable("it learns from no pairs")
    told = pairs(world, seed)
    data = experience.pair_data(policy, told, config)
    kept = [pair for number, pair in enumerate(told) if number % 3 != 1]
    if data.counts.get("pairs") != len(kept) or data.counts.get("pairs_dropped") != len(told) - len(kept):
        raise PropertyBroken(
            f"Of {len(told)} pairs {len(told) - len(kept)} are alike once cut; the counts say {data.counts}."
        )
    wanted = torch.tensor([pair.probability for pair in kept])
    if data.pairs.probability is None or not torch.allclose(data.pairs.probability.float(), wanted):
        raise PropertyBroken("A pair that was kept has the probability of another.")
    for side, texts, known in (
        (data.pairs.chosen, [(p.prompt, p.chosen, p.finished[0]) for p in kept], data.pairs.ref_chosen),
        (data.pairs.rejected, [(p.prompt, p.rejected, p.finished[1]) for p in kept], data.pairs.ref_rejected),
    ):
        prompts, responses, ended = (list(part) for part in zip(*texts, strict=True))
        alone = policy.encode(prompts, responses, finished=ended).sequences
        if _rows(side) != _rows(alone):
            raise PropertyBroken("The chosen or the rejected response of a pair is not its own.")
        if config.uses_reference:
            _close(known, _reference(policy, alone), "The reference's log-probability of a response")
        elif known is not None:
            raise PropertyBroken("It does without a reference, and was asked for one.")


@check(causes="good and bad exchanged, neighbours that are parted, or labels that stay where rows are dropped.")
def labels_keep_what_is_known_of_them(component: Component, seed: int) -> None:
    """Labels, of pairs and by themselves, stay with their response, and so does what the reference says of it."""
    world, policy = _world(seed)
    config: Any = settings(component, rows=8)
    if not isinstance(config, LabelConfig):
        raise NotApplicable("it learns from no labels")
    kept = [pair for number, pair in enumerate(pairs(world, seed)) if number % 3 != 1]
    of_pairs = experience.labels_of_pairs(policy, pairs(world, seed), config)
    rows = [(p.prompt, text, end, good) for p in kept for text, end, good in ((p.chosen, p.finished[0], True), (p.rejected, p.finished[1], False))]  # fmt: skip
    _labels(of_pairs.rows, rows, policy, config)
    single = [Labelled(prompt, text, good, end) for prompt, text, end, good in rows]
    _labels(experience.label_data(policy, single, config).rows, rows, policy, config)
    batch = next(experience.labelled_batches(of_pairs, config, updates=1, seeds=Seeds(seed)))
    if batch.good.reshape(-1, 2).sum(1).tolist() != [1] * (len(batch.good) // 2):
        raise PropertyBroken("The two responses of a pair are not neighbours in a batch.")


def _labels(found: LabelledBatch, rows: Sequence[Any], policy: TabularPolicy, config: LabelConfig) -> None:
    prompts, texts, ended, good = (list(part) for part in zip(*rows, strict=True))
    alone = policy.encode(prompts, texts, finished=ended).sequences
    if _rows(found.sequences) != _rows(alone) or found.good.tolist() != good:
        raise PropertyBroken("A response has the label of another.")
    if config.uses_reference:
        _close(found.ref_logprobs, _reference(policy, alone), "The reference's log-probability of a response")


@check(causes="the policy sampled in place of the reference, another temperature, or scores of other rows.")
def rollouts_are_of_whom_it_asks(component: Component, seed: int) -> None:
    """Responses to one prompt are neighbours, sampled at the config's temperature from whom it names, and bring their own score."""
    world, policy = _world(seed)
    config: Any = settings(component, rows=8)
    if not isinstance(config, RolloutConfig):
        raise NotApplicable("it learns from no samples of its own")
    batches = experience.rollout_batches(
        policy, WorldReward(world), world.prompts, config, updates=2, seeds=Seeds(seed)
    )
    for batch in batches:
        rollout, n = batch.rollout, config.samples_per_prompt
        names = [prompt.id for prompt in rollout.samples.prompts]
        if len(names) != config.batch_size or any(len(set(names[i : i + n])) > 1 for i in range(0, len(names), n)):
            raise PropertyBroken(
                f"{len(names)} responses of batch_size={config.batch_size}, {n} to a prompt: {names[: 2 * n]}."
            )
        turn, shown = torch.arange(len(names)), rollout.samples.sequences
        by = [policy.drawn_logprobs(shown, source, config.temperature) for source in config.sources]
        wanted = torch.stack(by)[turn % len(by), turn]
        _close(rollout.logprobs, wanted, "A token's log-probability")
        _close(batch.scores, world.rewards_of(rollout.samples), "A score")


def _reference(policy: TabularPolicy, sequences: Sequences) -> Tensor:
    with torch.no_grad():
        return policy.logprobs(sequences, role=REFERENCE).logprobs.sum(1)


def _close(found: Tensor | None, wanted: Tensor, what: str) -> None:
    if found is None or found.shape != wanted.shape or not float((found - wanted).abs().max()) <= 1e-4:
        raise PropertyBroken(f"{what} is that of another row, role or temperature.")
