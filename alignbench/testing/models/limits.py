"""Checks of where responses end: the limit of new tokens, ends of turns, and responses given as text that are too long."""

from __future__ import annotations

import torch

from alignbench.contracts import Policy
from alignbench.plugins import Component
from alignbench.records import Rollout, Sampling
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, PropertyBroken
from alignbench.testing.model_trial import LETTERS, build, prompts

LONG = 64
"""Longest limit that is tried, in tokens: a model may allow thousands."""
BEYOND = 2
"""Tokens beyond the policy's limit of training."""
check = CheckList()


@check(
    causes="the limit not read, off by one or held to the limit of training, or a response at the limit that counts as finished."
)
def the_limit_of_new_tokens_holds(component: Component, seed: int) -> None:
    """A response ends at its first end of turn and is then finished; else it has exactly `max_new_tokens` tokens, or the policy's own
    limit where none is given, and is not. The limit may go beyond that of training."""
    policy = build(component, seed, moved=False)
    own = policy.max_response_tokens
    limits: list[int | None] = [1, min(own, 3)]
    if own <= LONG:
        limits.append(None)
        if max(policy.prompt_tokens(prompt) for prompt in prompts()) + own + BEYOND <= policy.window:
            limits.append(own + BEYOND)
    for limit in limits:
        rng = Seeds(seed).torch(f"limit {limit}")
        sampling = Sampling(max_new_tokens=limit)
        rollout = policy.generate(prompts(), sampling, n=4, rng=rng)
        _require_ends(policy, rollout, limit or own, f"With max_new_tokens={limit},")


def _require_ends(policy: Policy, rollout: Rollout, limit: int, what: str) -> None:
    sequences, finished = rollout.samples.sequences, rollout.samples.finished.tolist()
    for row, (ids, mask) in enumerate(zip(sequences.response_ids, sequences.response_mask.bool(), strict=True)):
        tokens = ids[mask].tolist()
        ends = [place for place, token in enumerate(tokens) if token in policy.eos_token_ids]
        if len(tokens) > limit:
            raise PropertyBroken(f"{what} response {row} has {len(tokens)} tokens, {limit} allowed.")
        if finished[row] is not bool(ends):
            raise PropertyBroken(
                f"{what} response {row} is {'' if finished[row] else 'not '}finished, and has {len(ends)} ends of turns."
            )
        if ends and ends != [len(tokens) - 1]:
            raise PropertyBroken(f"{what} response {row} goes on after its first end of turn.")
        if not ends and len(tokens) != limit:
            raise PropertyBroken(f"{what} response {row} is cut after {len(tokens)} tokens, {limit} allowed.")


@check(
    causes="a tokenizer that truncates, at the left or at all, or ends of turns added to responses that are not finished."
)
def responses_as_tokens_are_whole(component: Component, seed: int) -> None:
    """Responses given as text become tokens that are not cut, that begin as a shorter text does, and that end with an end of turn
    where they are finished and without one where not."""
    policy = build(component, seed, moved=False)
    words = _words(policy, seed)
    text, start = " ".join(words), " ".join(words[:4])
    whole, opened, short = policy.response_tokens([text, text, start], [True, False, False])
    if whole != [*opened, policy.eos_token_ids[0]]:
        raise PropertyBroken("A finished response is not the unfinished one and an end of turn.")
    if any(token in policy.eos_token_ids for token in opened):
        raise PropertyBroken("A response that is not finished has an end of turn.")
    # The last token of a shorter text may be joined with what follows.
    if opened[: len(short) - 1] != short[:-1]:
        raise PropertyBroken("A long response does not begin with the tokens of its own beginning.")
    if len(opened) <= policy.max_response_tokens:
        raise PropertyBroken(f"A response of {len(words)} words has {len(opened)} tokens: it was cut.")


@check(causes="a response cut at its beginning, or one that counts as finished although its end was cut off.")
def a_long_response_is_cut_at_its_end(component: Component, seed: int) -> None:
    """A response that is longer than the limit keeps its first tokens and is not finished; others beside it stay whole; one that is given
    as not finished gets no end of turn."""
    policy = build(component, seed, moved=False)
    limit, prompt = policy.max_response_tokens, prompts()[0]
    text = " ".join(_words(policy, seed))
    texts, ended = [text, "a", text, "a"], [True, True, False, False]
    rows = policy.response_tokens(texts, ended)
    samples = policy.encode([prompt] * len(texts), texts, finished=ended)
    sequences = samples.sequences
    default = policy.encode([prompt] * 2, [text, "a"]).sequences
    if not torch.equal(default.response_ids, sequences.select(torch.tensor([0, 1])).response_ids):
        raise PropertyBroken("Without a word on whether responses are finished they are not taken for finished.")
    for row, expected in enumerate(rows):
        found = sequences.response_ids[row][sequences.response_mask[row].bool()].tolist()
        what = f"A response of {len(expected)} tokens under a limit of {limit}"
        if len(found) != min(limit, len(expected)):
            raise PropertyBroken(f"{what} has {len(found)}.")
        if found != expected[:limit]:
            raise PropertyBroken(f"{what} has not its first tokens.")
        whole = ended[row] and len(expected) <= limit
        if bool(samples.finished[row]) is not whole:
            given, found_so = ("" if ended[row] else "not "), ("not " if whole else "")
            raise PropertyBroken(f"{what}, given as {given}finished, is {found_so}finished.")


def _words(policy: Policy, seed: int) -> list[str]:
    """More than the limit allows, even where a token is two of them, in an order that does not repeat: no piece is like another."""
    rng = Seeds(seed).torch("words")
    draws = torch.randint(len(LETTERS), (2 * policy.max_response_tokens + 8,), generator=rng)
    return [LETTERS[int(draw)] for draw in draws]
