"""The decoding loop: what it draws, what it says of it, and that leaving the batch early changes nothing."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from alignbench_hf import config, scalar
from alignbench_hf import sampling as module
from alignbench_hf.policy import HFPolicy
from alignbench_hf.sampling import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from alignbench import POLICY, REFERENCE, Decoded, Policy, Request, Rollout, Sampler, Sampling, UserError
from alignbench.plugins import Kind, registry
from tests import tiny

property_test = settings(deadline=None, derandomize=True, max_examples=60)
DRAWS = 20000


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chances(rows: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, generator=rng(seed), dtype=torch.float64)


def frequencies(logits: Tensor, sampling: Sampling) -> Tensor:
    tokens, _ = draw(logits.expand(DRAWS, -1), sampling, chances(DRAWS))
    return torch.bincount(tokens, minlength=logits.shape[-1]) / DRAWS


def test_every_head_may_be_chosen() -> None:
    assert tuple(scalar.HEADS) == config.HEADS


class Elsewhere(Sampler):
    """Says the same to everything, and asks no model."""

    reads_model = False

    def __init__(self, config: object, *, policy: Policy) -> None:
        self.policy, self.roles = policy, list[str]()

    def sample(self, model: Any, output: Any, request: Request) -> Decoded:
        assert model is None and output is None
        self.roles.append(request.role)
        found, rows = Decoded.empty(request), torch.arange(len(request.prompt_ids))
        found.put(0, rows, request.eos[:1].expand(len(rows)), torch.zeros(len(rows)), request.eos)
        return found


def test_a_sampler_with_a_program_of_its_own_is_given_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is merged for it; it knows its policy and whom it samples."""
    component = replace(registry().get(Kind.SAMPLER, "loop"), target=f"{__name__}:Elsewhere")
    known = registry().components | {(Kind.SAMPLER, "loop"): component}
    monkeypatch.setattr("alignbench.selection.registry", lambda: replace(registry(), components=known))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Elsewhere.__module__])
    policy = tiny.scratch()
    monkeypatch.setattr(policy._roles, "sampling", lambda role: pytest.fail("a model was asked for"))
    policy.freeze_reference()
    for role in (POLICY, REFERENCE):
        rollout = policy.generate(tiny.PROMPTS, Sampling(), role=role, rng=rng())
        assert bool(rollout.samples.finished.all())
    sampler = policy._sampler
    assert isinstance(sampler, Elsewhere)
    assert (sampler.policy, sampler.roles) == (policy, [POLICY, REFERENCE])


def test_unknown_samplers_and_options_are_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown sampler 'lop'.*'loop'\?"):
        config.ScratchConfig(sampler="lop")
    with pytest.raises(UserError, match=r"'size' in model\.sampler_options"):
        config.ScratchConfig(sampler_options={"size": 3})


# Drawing one token


def test_draw_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -2.0, 3.0, 0.5]])
    p = torch.softmax(logits[0], 0)
    assert ((frequencies(logits, Sampling()) - p).abs() < 5 * (p * (1 - p) / DRAWS).sqrt()).all()


@given(
    st.lists(st.integers(-50, 50), min_size=2, max_size=12, unique=True),  # tenths: ties have no right answer
    st.sampled_from([0, 1, 2, 5, 50]),
    st.sampled_from([0.05, 0.3, 0.6, 0.9, 1.0]),
)
@property_test
def test_top_k_and_top_p_keep_what_transformers_keeps(values: list[int], top_k: int, top_p: float) -> None:
    """The support of 2000 draws lies within transformers' own warpers', and what they keep with weight is drawn."""
    logits = torch.log_softmax(torch.tensor([values]) / 10, -1)
    warpers = LogitsProcessorList()
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    allowed = torch.softmax(warpers(torch.zeros(1, 1, dtype=torch.long), logits), -1)[0]
    tokens, logprobs = draw(logits.expand(2000, -1), Sampling(top_k=top_k, top_p=top_p), chances(2000))
    drawn = torch.bincount(tokens, minlength=len(values)) > 0
    assert not (drawn & (allowed == 0)).any()
    assert drawn[allowed > 0.02].all()
    # whatever was cut off, the log-probability is that of the whole distribution
    torch.testing.assert_close(logprobs, logits[0, tokens])


def test_top_p_renormalises_after_top_k() -> None:
    """.5 .3 .2 cut to its first two is .625 .375: a nucleus of .6 is the first alone."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert frequencies(logits, Sampling(top_k=2, top_p=0.6)).tolist() == [1, 0, 0]
    assert frequencies(logits, Sampling(top_k=0, top_p=0.6))[2] == 0
    assert frequencies(logits, Sampling(top_k=0, top_p=0.6))[1] == pytest.approx(0.375, abs=0.02)


def test_draw_inverts_the_cumulative_distribution() -> None:
    """.25 .5 0 .25: each chance falls to the first token that the sum has passed; what has no probability is never drawn."""
    logits = torch.tensor([[0.25, 0.5, 0.0, 0.25]]).log().clamp(min=-1e9)
    asked = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 1 - 2**-53], dtype=torch.float64)
    tokens, logprobs = draw(logits.expand(len(asked), -1), Sampling(), asked)
    assert tokens.tolist() == [0, 0, 1, 1, 3, 3]
    torch.testing.assert_close(logprobs, logits[0, tokens])


# Whole responses


def generate(policy: HFPolicy, seed: int = 0, n: int = 8, **options: object) -> Rollout:
    return policy.generate(tiny.PROMPTS, Sampling(**options), n=n, rng=rng(seed))  # type: ignore[arg-type]


@pytest.fixture(params=["scratch", "adapters"])
def policy(request: pytest.FixtureRequest) -> HFPolicy:
    return getattr(tiny, request.param)()


@pytest.mark.parametrize("size", [1, 3, 256])
def test_a_row_gets_the_same_tokens_whatever_batch_it_is_decoded_in(size: int) -> None:
    whole, parts = generate(tiny.scratch()), generate(tiny.scratch(generation_batch_size=size))
    assert whole.samples.texts == parts.samples.texts
    torch.testing.assert_close(whole.logprobs, parts.logprobs, atol=1e-5, rtol=1e-5)


def test_sampling_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    generate(tiny.scratch())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_responses_repeat_under_a_seed(policy: HFPolicy) -> None:
    one, two, other = generate(policy, 0), generate(policy, 0), generate(policy, 1)
    assert torch.equal(one.samples.sequences.response_ids, two.samples.sequences.response_ids)
    assert torch.equal(one.logprobs, two.logprobs)
    assert one.samples.texts == two.samples.texts
    assert one.samples.texts != other.samples.texts


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_samplers_logprobs_are_the_policys(policy: HFPolicy, temperature: float) -> None:
    rollout = generate(policy, n=20, temperature=temperature)
    assert rollout.temperature == temperature
    with torch.no_grad():
        again = policy.logprobs(rollout.samples.sequences, temperature=temperature).logprobs
    assert (rollout.logprobs[rollout.samples.sequences.response_mask] < 0).all()
    torch.testing.assert_close(rollout.logprobs, again, rtol=0, atol=1e-4)


def test_responses_end_at_their_first_eos(policy: HFPolicy) -> None:
    samples = generate(policy, n=40).samples
    ends = 0
    for ids, mask, finished in zip(
        samples.sequences.response_ids.tolist(),
        samples.sequences.response_mask.tolist(),
        samples.finished.tolist(),
        strict=True,
    ):
        length = ids.index(tiny.EOS) + 1 if tiny.EOS in ids else len(ids)
        assert mask == [True] * length + [False] * (len(ids) - length)
        assert ids[length:] == [tiny.PAD] * (len(ids) - length)
        assert finished == (tiny.EOS in ids)
        assert finished or length == policy.max_response_tokens
        ends += finished
    assert 0 < ends < len(samples), "both kinds should be seen"


def test_texts_are_the_tokens_without_specials(policy: HFPolicy) -> None:
    samples = generate(policy).samples
    names = {i: token for token, i in policy.tokenizer.get_vocab().items()}
    for text, ids, mask in zip(
        samples.texts, samples.sequences.response_ids.tolist(), samples.sequences.response_mask.tolist(), strict=True
    ):
        told = [names[i] for i, m in zip(ids, mask, strict=True) if m]
        assert text == " ".join(token for token in told if not token.startswith("<"))


@pytest.mark.parametrize("share", [0.0, 0.75, 1.1])
def test_finished_rows_may_leave_or_stay(policy: HFPolicy, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never, sometimes or always evicted: what is drawn has the log-probabilities that a forward pass gives it, at a
    temperature at which nothing is left to chance the same tokens come out."""
    monkeypatch.setattr(module, "EVICT_BELOW", share)
    rollout = generate(policy, n=40)
    with torch.no_grad():
        again = policy.logprobs(rollout.samples.sequences).logprobs
    torch.testing.assert_close(rollout.logprobs, again, rtol=0, atol=1e-4)
    greedy = generate(policy, n=1, temperature=1e-4).samples.sequences
    monkeypatch.setattr(module, "EVICT_BELOW", 0.0)
    assert torch.equal(greedy.response_ids, generate(policy, n=1, temperature=1e-4).samples.sequences.response_ids)


def test_finished_rows_do_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    honest = module.draw
    monkeypatch.setattr(module, "draw", lambda logits, *rest: (widths.append(len(logits)), honest(logits, *rest))[1])
    samples = generate(tiny.scratch(max_response_tokens=16), n=40).samples
    lengths = samples.sequences.response_mask.sum(1)
    assert widths[0] == 240
    assert widths[-1] < 240
    for step, width in enumerate(widths):
        going = int((lengths > step).sum())
        assert going <= width
        assert width == 240 or going > 0.5 * width, "at most a quarter, and those that ended at this step"


@pytest.mark.parametrize("make", [tiny.scratch, tiny.adapters])
def test_near_zero_temperature_is_transformers_greedy(make) -> None:  # type: ignore[no-untyped-def]
    """For policies of several seeds, on a batch of prompts of different lengths."""
    ends = set()
    for seed in range(4):
        policy = make(seed=seed)
        mine = generate(policy, n=1, temperature=1e-5).samples.sequences
        model = policy._roles.use("policy")
        theirs = model.generate(
            input_ids=mine.prompt_ids,
            attention_mask=mine.prompt_mask.long(),
            max_new_tokens=policy.max_response_tokens,
            do_sample=False,
            eos_token_id=tiny.EOS,
            pad_token_id=tiny.PAD,
        )[:, mine.prompt_ids.shape[1] :]
        assert torch.equal(mine.response_ids, theirs)
        ends |= set(mine.response_mask.sum(1).tolist())
    assert len(ends) > 1, "responses of different lengths should be seen"


@pytest.mark.parametrize("make", [tiny.scratch, tiny.adapters])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8, "max_new_tokens": 4}])
def test_transformers_generate_gives_the_same_samples(make, options: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    """The reference: transformers' own loop and cache, given the same chances. Tokens, log-probabilities, ends."""
    mine, theirs = make(suppress_tokens=["c"]), make(suppress_tokens=["c"], sampler="generate")
    theirs._roles.use("policy").generation_config.repetition_penalty = 5.0  # what a model brings along is not used
    one, other = generate(mine, **options), generate(theirs, **options)
    assert torch.equal(one.samples.sequences.response_ids, other.samples.sequences.response_ids)
    assert torch.equal(one.samples.sequences.response_mask, other.samples.sequences.response_mask)
    assert torch.equal(one.samples.finished, other.samples.finished)
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=2e-5)
    assert theirs._roles.use("policy").generation_config.repetition_penalty == 5.0


def test_samples_follow_the_models_distribution() -> None:
    """First and second tokens of many responses to two prompts of different length against the model's own
    probabilities, computed for each prompt alone and without padding."""
    policy = tiny.scratch(max_response_tokens=2)
    n = 4000
    rollout = policy.generate(tiny.PROMPTS[:2], Sampling(temperature=0.8), n=n, rng=rng())
    model, sequences = policy._roles.use("policy"), rollout.samples.sequences
    for row in range(2):
        prompt = sequences.prompt_ids[row * n][sequences.prompt_mask[row * n]][None]
        with torch.no_grad():
            first = torch.softmax(model(input_ids=prompt).logits[0, -1] / 0.8, -1)
            favourite = int(first[2:].argmax()) + 2
            longer = torch.cat([prompt, torch.tensor([[favourite]])], 1)
            second = torch.softmax(model(input_ids=longer).logits[0, -1] / 0.8, -1)
        drawn = sequences.response_ids[row * n : (row + 1) * n]
        after = drawn[drawn[:, 0] == favourite, 1]
        for tokens, p in ((drawn[:, 0], first), (after, second)):
            seen = torch.bincount(tokens, minlength=len(p)) / len(tokens)
            assert ((seen - p).abs() < 5 * (p * (1 - p) / len(tokens)).sqrt() + 1e-3).all()


def test_limits_on_length() -> None:
    policy = tiny.scratch()
    for asked, given_ in ((1, 1), (3, 3), (None, 6)):
        ids = generate(policy, n=20, max_new_tokens=asked).samples.sequences.response_ids
        assert ids.shape == (120, given_)


def test_generation_batches_change_memory_only() -> None:
    """Sampled in pieces of any size, log-probabilities are the policy's and near-greedy responses the same."""
    whole, pieces = tiny.scratch(), tiny.scratch(generation_batch_size=2)
    greedy = [generate(p, n=1, temperature=1e-5).samples for p in (whole, pieces)]
    assert greedy[0].texts == greedy[1].texts
    rollout = generate(pieces, n=3)
    with torch.no_grad():
        torch.testing.assert_close(
            rollout.logprobs, whole.logprobs(rollout.samples.sequences).logprobs, rtol=0, atol=1e-4
        )
    assert math.isfinite(float(rollout.logprobs.sum()))


# Sampling that somebody watches


@pytest.mark.parametrize("policy", [tiny.scratch, tiny.adapters])
@pytest.mark.parametrize("changes", [{}, {"sampler": "generate"}, {"generation_batch_size": 4}])
def test_who_watches_sees_what_is_sampled_grow(policy: Any, changes: dict[str, Any]) -> None:
    model: HFPolicy = policy(**changes)
    plain = model.generate(tiny.PROMPTS, Sampling(), n=2, rng=rng())
    seen: list[list[list[int]]] = []
    found = model.generate_watched(
        tiny.PROMPTS, Sampling(), lambda rows: seen.append([list(row) for row in rows]), n=2, rng=rng()
    )
    assert torch.equal(found.samples.sequences.response_ids, plain.samples.sequences.response_ids)
    assert torch.equal(found.logprobs, plain.logprobs)
    lengths = plain.samples.sequences.response_mask.sum(1).tolist()
    rows = [row[:end] for row, end in zip(plain.samples.sequences.response_ids.tolist(), lengths, strict=True)]
    assert seen[-1] == rows
    for before, after in itertools.pairwise(seen):
        assert sum(map(len, before)) < sum(map(len, after))
        assert all(one == other[: len(one)] for one, other in zip(before, after, strict=True))


def test_who_watches_may_end_it() -> None:
    """A model that merges its adapter while it samples is then as it was."""
    model = tiny.adapters()
    sequences = tiny.sequences(model)
    before = model.logprobs(sequences).logprobs

    def enough(rows: Any) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        model.generate_watched(tiny.PROMPTS, Sampling(), enough, rng=rng())
    assert torch.equal(model.logprobs(sequences).logprobs, before)


def test_a_policy_that_cannot_tell_more_tells_all_at_the_end() -> None:
    model = tiny.scratch()
    seen: list[Any] = []
    found = Policy.generate_watched(model, tiny.PROMPTS, Sampling(), seen.append, rng=rng())
    (rows,) = seen
    assert [len(row) for row in rows] == found.samples.sequences.response_mask.sum(1).tolist()
    assert model.response_texts(rows) == found.samples.texts
