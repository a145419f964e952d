"""What feeds an optimizer: prompts to scored rollouts, demonstrations or rankings to batches."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from alignbench import functional
from alignbench.contracts import Annotator, Policy, RewardSource
from alignbench.errors import UserError
from alignbench.optimizer_config import LabelConfig, OfflineConfig, OptimizerConfig, RolloutConfig
from alignbench.records import (
    REFERENCE,
    Demonstration,
    Labelled,
    Message,
    PreferencePair,
    Prompt,
    Ranking,
    Rollout,
    Samples,
    Sampling,
    ScoredRollout,
    Sequences,
    expand,
)
from alignbench.records.batches import DemonstrationBatch, LabelledBatch, PreferenceBatch
from alignbench.records.source import Source
from alignbench.scoring import scored
from alignbench.seeds import Seeds

Batch = DemonstrationBatch | ScoredRollout | PreferenceBatch | LabelledBatch


def planned_updates(config: OptimizerConfig, rows: int) -> int:
    """How many batches an optimizer will be given."""
    if config.updates > 0:
        return config.updates
    return max(round(config.passes * rows / config.batch_size), 1)


def fitting(policy: Policy, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that fit the policy's window."""
    return [prompt for prompt in prompts if policy.prompt_tokens(prompt) <= policy.max_prompt_tokens]


def demonstration_batches(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    config: OptimizerConfig,
    *,
    updates: int,
    seeds: Seeds,
    start: int = 0,
) -> Iterator[DemonstrationBatch]:
    """Batches `start` to `updates`."""
    sequences = policy.encode([d.prompt for d in demonstrations], [d.response for d in demonstrations]).sequences
    batches = functional.shuffled_batches(len(demonstrations), config.batch_size, seeds.torch("order"))
    for rows in islice(batches, start, updates):
        yield DemonstrationBatch(sequences.select(rows))


def rollout_batches(
    policy: Policy,
    reward: RewardSource,
    prompts: Sequence[Prompt],
    config: RolloutConfig,
    *,
    updates: int,
    seeds: Seeds,
    start: int = 0,
) -> Iterator[ScoredRollout]:
    """Batches `start` to `updates`, sampled from the policy as it stands when the batch is asked for, unless the config
    asks for the reference. Each batch has a generator of its own: what it draws depends on its number alone."""
    for asked in asked_prompts(prompts, config, updates=updates, seeds=seeds, start=start):
        yield scored(reward, sampled(policy, asked, config))


@dataclass(frozen=True)
class Asked:
    """The prompts of one batch and the generator that its responses are drawn by."""

    prompts: Sequence[Prompt]
    rng: torch.Generator


def asked_prompts(
    prompts: Sequence[Prompt], config: RolloutConfig, *, updates: int, seeds: Seeds, start: int
) -> Iterator[Asked]:
    size = config.batch_size // config.samples_per_prompt
    order = functional.shuffled_batches(len(prompts), size, seeds.torch("prompts"))
    for update, rows in enumerate(islice(order, start, updates), start):
        yield Asked([prompts[i] for i in rows.tolist()], seeds.torch(f"sampling {update}"))


def sampled(policy: Policy, asked: Asked, config: RolloutConfig) -> Rollout:
    return drawn(policy, asked, config.sources, n=config.samples_per_prompt, temperature=config.temperature)


def drawn(policy: Policy, asked: Asked, sources: Sequence[Source], *, n: int, temperature: float) -> Rollout:
    """n responses to each prompt, from the sources in turn."""
    parts = [
        policy.generate(
            asked.prompts,
            Sampling(temperature=temperature, reference_share=source.reference_share),
            n=n // len(sources),
            role=source.role,
            rng=asked.rng,
        )
        for source in sources
    ]
    return parts[0] if len(parts) == 1 else in_turn(parts)


def in_turn(parts: Sequence[Rollout]) -> Rollout:
    """The first row of each part, then the second of each, and so on."""
    samples = [part.samples for part in parts]
    shown = reduce(functional.stacked, (each.sequences for each in samples))
    rows = torch.arange(len(shown), device=shown.response_ids.device).reshape(len(parts), -1).T.flatten()
    prompts = tuple(itertools.chain(*zip(*(each.prompts for each in samples), strict=True)))
    texts = tuple(itertools.chain(*zip(*(each.texts for each in samples), strict=True)))
    width = shown.response_ids.shape[1]
    logprobs = [torch.nn.functional.pad(part.logprobs, (0, width - part.logprobs.shape[1])) for part in parts]
    turned = Samples(prompts, texts, shown.select(rows), torch.cat([each.finished for each in samples])[rows])
    return Rollout(turned, torch.cat(logprobs)[rows], parts[0].temperature, any(part.off_policy for part in parts))


class Overlapped:
    """`rollout_batches` for a reward that waits for somebody elsewhere: while that one scores a batch, the policy learns from the one
    before. Every batch but the first was therefore sampled by the weights of one update earlier, and says so (`Rollout.off_policy`).

    What was sampled for the next update is part of the training state: a run that goes on learns from the very same responses."""

    def __init__(
        self, policy: Policy, reward: RewardSource, prompts: Sequence[Prompt], config: RolloutConfig, seeds: Seeds
    ) -> None:
        self._policy, self._reward, self._prompts, self._config, self._seeds = policy, reward, prompts, config, seeds
        self._next: Rollout | None = None

    def batches(self, updates: int, start: int) -> Iterator[ScoredRollout]:
        """Batches `start` to `updates`."""
        asked = asked_prompts(self._prompts, self._config, updates=updates, seeds=self._seeds, start=start)
        first = next(asked, None)
        if first is None:
            return
        pool, ended = ThreadPoolExecutor(1), threading.Event()

        def score(rollout: Rollout) -> ScoredRollout:
            if ended.is_set():
                raise CancelledError
            try:
                return scored(self._reward, rollout)
            except BaseException:
                ended.set()  # nobody will learn from the next batch
                raise

        try:
            present = pool.submit(score, self._next or sampled(self._policy, first, self._config))
            for following in asked:
                self._next = replace(sampled(self._policy, following, self._config), off_policy=True)
                waiting = pool.submit(score, self._next)
                yield present.result()
                present = waiting
            self._next = None
            yield present.result()
        finally:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def state_dict(self) -> dict[str, Any]:
        """What was sampled and not learnt from yet, as tensors and plain values; empty where nothing was."""
        if self._next is None:
            return {}
        samples = self._next.samples
        return {
            "texts": list(samples.texts),
            "sequences": dict(vars(samples.sequences)),
            "finished": samples.finished,
            "logprobs": self._next.logprobs,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, updates: int, start: int) -> None:
        """`start`: how many batches have been learnt from."""
        if not state:
            return
        asked = next(asked_prompts(self._prompts, self._config, updates=updates, seeds=self._seeds, start=start))
        device = self._policy.device
        sequences = Sequences(**{name: part.to(device) for name, part in state["sequences"].items()})
        prompts = expand(asked.prompts, self._config.samples_per_prompt)
        samples = Samples(prompts, tuple(state["texts"]), sequences, state["finished"].to(device))
        self._next = Rollout(samples, state["logprobs"].to(device), self._config.temperature, off_policy=True)


@dataclass(frozen=True)
class PairData:
    """All pairs that an algorithm will learn from, tokenised, with the reference's log-probabilities where it uses them.

    `counts`: pairs kept; pairs of which a response was cut at the policy's limit; pairs dropped because cutting made the
    two responses equal. `seconds`: of asking the reference."""

    pairs: PreferenceBatch
    counts: Mapping[str, int]
    seconds: float = 0.0


@dataclass(frozen=True)
class ReferenceScores:
    """`logprobs` [B]: log pi_ref of each response. `seconds`: what asking took, whenever that was: part of the algorithm's cost."""

    logprobs: Tensor
    seconds: float


Reference = Callable[[Policy, Sequences], ReferenceScores]


def pair_data(
    policy: Policy,
    pairs: Sequence[PreferencePair],
    config: OfflineConfig,
    *,
    reference: Reference | None = None,
) -> PairData:
    """Tokenises pairs and asks the reference, or whoever remembers it; a response of several pairs is read once."""
    if not pairs:
        raise UserError("No ranking has two different responses of different rank: there is nothing to learn from.")
    # One row for each different response to a prompt, and the rows of each pair's chosen and rejected response.
    rows: dict[tuple[tuple[Message, ...], str, bool], int] = {}
    prompts: list[Prompt] = []

    def row(pair: PreferencePair, text: str, finished: bool) -> int:
        found = rows.setdefault((pair.prompt.messages, text, finished), len(rows))
        if found == len(prompts):
            prompts.append(pair.prompt)
        return found

    chosen = torch.tensor([row(p, p.chosen, p.finished[0]) for p in pairs], device=policy.device)
    rejected = torch.tensor([row(p, p.rejected, p.finished[1]) for p in pairs], device=policy.device)
    texts, ended = [text for _, text, _ in rows], [end for _, _, end in rows]
    samples = policy.encode(prompts, texts, finished=ended)
    different = ~equal_rows(samples.sequences.select(chosen), samples.sequences.select(rejected))
    cut = torch.tensor(ended, device=policy.device) & ~samples.finished
    counts = {
        "pairs": int(different.sum()),
        "pairs_truncated": int(((cut[chosen] | cut[rejected]) & different).sum()),
        "pairs_dropped": int((~different).sum()),
    }
    if not counts["pairs"]:
        raise UserError(
            f"All {len(pairs)} pairs are alike once cut at model.max_response_tokens={policy.max_response_tokens}: raise it."
        )
    chosen, rejected = chosen[different], rejected[different]
    known = [p.probability for p in pairs if p.probability is not None]
    probability = torch.tensor(known, device=policy.device)[different] if len(known) == len(pairs) else None
    ask = reference or ask_reference
    asked = ask(policy, samples.sequences) if config.uses_reference else None
    ref = asked.logprobs if asked else None
    data = PreferenceBatch(
        samples.sequences.select(chosen),
        samples.sequences.select(rejected),
        probability,
        None if ref is None else ref[chosen],
        None if ref is None else ref[rejected],
    )
    return PairData(data, counts, asked.seconds if asked else 0.0)


def equal_rows(left: Sequences, right: Sequences) -> Tensor:
    """[B] bool: whether the two responses of a row are the same tokens."""
    width = min(left.response_ids.shape[1], right.response_ids.shape[1])
    same = (left.response_ids[:, :width] == right.response_ids[:, :width]) | ~left.response_mask[:, :width]
    return same.all(1) & (left.response_mask.sum(1) == right.response_mask.sum(1))


def reference_logprobs(policy: Policy, sequences: Sequences) -> Tensor:
    """[B]: log pi_ref of each response."""
    with torch.no_grad():
        return functional.summed_logprobs(policy, sequences, role=REFERENCE)


def ask_reference(policy: Policy, sequences: Sequences) -> ReferenceScores:
    """`reference_logprobs` against the clock."""
    start = time.perf_counter()
    found = reference_logprobs(policy, sequences)
    found.sum().item()  # a GPU is asked ahead: the clock waits for its answer
    return ReferenceScores(found, time.perf_counter() - start)


def preference_batches(
    data: PairData, config: OptimizerConfig, *, updates: int, seeds: Seeds, start: int = 0
) -> Iterator[PreferenceBatch]:
    """Batches `start` to `updates`."""
    batches = functional.shuffled_batches(len(data.pairs), config.batch_size, seeds.torch("order"))
    for rows in islice(batches, start, updates):
        yield data.pairs.select(rows.to(data.pairs.chosen.response_ids.device))


@dataclass(frozen=True)
class LabelData:
    """All labelled responses that an algorithm will learn from, tokenised. `together` neighbours stay in one batch: the two
    responses of a pair, where they come from pairs. `counts`: as PairData's, of pairs or of labels; how many are good and bad.
    `seconds`: of asking the reference."""

    rows: LabelledBatch
    counts: Mapping[str, int]
    together: int
    seconds: float = 0.0


def labels_of_pairs(
    policy: Policy, pairs: Sequence[PreferencePair], config: LabelConfig, *, reference: Reference | None = None
) -> LabelData:
    """Pairs taken apart: the chosen response is good, the rejected one bad (arXiv 2402.01306, section 4)."""
    found = pair_data(policy, pairs, config, reference=reference)
    sides, count = found.pairs, len(found.pairs)
    stacked = functional.stacked(sides.chosen, sides.rejected)
    neighbours = torch.arange(2 * count).reshape(2, count).T.flatten().to(policy.device)
    ref = None
    if sides.ref_chosen is not None and sides.ref_rejected is not None:
        ref = torch.cat([sides.ref_chosen, sides.ref_rejected])
    rows = LabelledBatch(stacked, torch.arange(2 * count, device=policy.device) < count, ref).select(neighbours)
    return LabelData(rows, {**found.counts, "labelled_good": count, "labelled_bad": count}, 2, found.seconds)


def label_data(
    policy: Policy, labelled: Sequence[Labelled], config: LabelConfig, *, reference: Reference | None = None
) -> LabelData:
    """Tokenises labels that were given without pairs, those whose prompt fits, and asks the reference of each."""
    kept = [one for one in labelled if policy.prompt_tokens(one.prompt) <= policy.max_prompt_tokens]
    if not kept:
        raise UserError(f"None of {len(labelled)} labelled responses has a prompt that fits the model's window.")
    ended = [one.finished for one in kept]
    samples = policy.encode([one.prompt for one in kept], [one.response for one in kept], finished=ended)
    good = torch.tensor([one.good for one in kept], device=policy.device)
    counts = {
        "labelled": len(labelled),
        "labelled_over_window": len(labelled) - len(kept),
        "labelled_truncated": int((torch.tensor(ended, device=policy.device) & ~samples.finished).sum()),
        "labelled_good": int(good.sum()),
        "labelled_bad": int((~good).sum()),
    }
    asked = (reference or ask_reference)(policy, samples.sequences) if config.uses_reference else None
    rows = LabelledBatch(samples.sequences, good, asked.logprobs if asked else None)
    return LabelData(rows, counts, 1, asked.seconds if asked else 0.0)


def labelled_batches(
    data: LabelData, config: LabelConfig, *, updates: int, seeds: Seeds, start: int = 0
) -> Iterator[LabelledBatch]:
    """Batches `start` to `updates`."""
    size, together = config.responses // data.together, torch.arange(data.together)
    batches = functional.shuffled_batches(len(data.rows) // data.together, size, seeds.torch("order"))
    for chosen in islice(batches, start, updates):
        rows = (chosen[:, None] * data.together + together).flatten()
        yield data.rows.select(rows.to(data.rows.good.device))


def labelled_pairs(rankings: Sequence[Ranking], annotator: Annotator, which: str = "all") -> list[PreferencePair]:
    """All pairs of the rankings (or best_worst), each with the annotator's own probability where it is known."""
    return [
        PreferencePair(
            pair.prompt,
            pair.chosen,
            pair.rejected,
            annotator.preference(pair.prompt, pair.chosen, pair.rejected, finished=pair.finished),
            pair.finished,
        )
        for ranking in rankings
        for pair in functional.ranking_to_pairs(ranking, which)
    ]


def collect_rankings(
    policy: Policy,
    annotator: Annotator,
    prompts: Sequence[Prompt],
    *,
    responses: int,
    temperature: float,
    rng: torch.Generator,
) -> list[Ranking]:
    """Samples `responses` responses to each prompt and has them ranked: step two of InstructGPT (arXiv 2203.02155)."""
    samples = policy.generate(prompts, Sampling(temperature=temperature), n=responses, rng=rng).samples
    ended = samples.finished.tolist()
    parts = [slice(i * responses, (i + 1) * responses) for i in range(len(prompts))]
    texts, finished = [samples.texts[part] for part in parts], [tuple(ended[part]) for part in parts]
    ranks = annotator.rank_all(prompts, texts, finished=finished)
    return [Ranking(*row) for row in zip(prompts, texts, ranks, finished, strict=True)]
