"""Checks of the sampling options: which tokens may come first, and how often each does, by the policy's own log-probabilities.

Only tokens that were drawn are looked at, so that a vocabulary may have any size."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench.contracts import Policy
from alignbench.plugins import Component
from alignbench.records import Prompt, Sampling
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.model_trial import EXACT, build, few, measured, prompts, tolerance

DRAWS = 512
"""First tokens drawn with each setting."""
MOST = 24
"""Tokens of which the probability is asked, the most frequent ones."""
SEEN = 0.03
"""Least probability of a token that must be among the draws: the chance that it is not is 2e-7."""
ERRORS = 5.0
"""Standard errors that a token's count may be off."""
check = CheckList()


@dataclass(frozen=True)
class First:
    """First tokens of many responses, the most probable first: ids, how often each came, and its log-probability under the
    policy at the temperature that it was drawn at, before any token is left out. [K] each."""

    tokens: Tensor
    counts: Tensor
    logprobs: Tensor

    def without(self, kept: Tensor) -> First:
        return First(self.tokens[kept], self.counts[kept], self.logprobs[kept])


@dataclass(frozen=True)
class Asked:
    """A policy and a prompt. `slack`: how far a log-probability of sampling may be from one of scoring, in nats."""

    policy: Policy
    prompt: Prompt
    seed: int
    slack: float

    def first(self, sampling: Sampling, beside: First | None = None) -> First:
        """Draws, and the tokens of other draws that did not come."""
        rng = Seeds(self.seed).torch(f"first {sampling}")
        rollout = self.policy.generate([self.prompt], sampling, n=DRAWS, rng=rng)
        tokens, counts = rollout.samples.sequences.response_ids[:, 0].cpu().unique(return_counts=True)
        most = counts.argsort(descending=True, stable=True)[:MOST]
        tokens, counts = tokens[most], counts[most]
        if beside is not None:
            others = beside.tokens[~torch.isin(beside.tokens, tokens)]
            tokens, counts = torch.cat([tokens, others]), torch.cat([counts, torch.zeros_like(others)])
        logprobs = self.logprobs(tokens, sampling.temperature)
        order = logprobs.argsort(descending=True, stable=True)
        return First(tokens[order], counts[order], logprobs[order])

    def logprobs(self, tokens: Tensor, temperature: float) -> Tensor:
        given = self.policy.given([self.prompt] * len(tokens), [[int(token)] for token in tokens])
        return measured(self.policy, given, temperature=temperature)[:, 0].double().cpu()


def _ask(component: Component, seed: int) -> Asked:
    return Asked(build(component, seed), prompts()[1], seed, 2 * tolerance(component, seed))


def _frequencies(found: First, slack: float, what: str) -> str:
    """Each of these tokens, the only ones that may come, comes as often as its share of their probability."""
    share = found.logprobs.softmax(0)
    counts = found.counts.double()
    deviation = (counts - DRAWS * share).abs() / (DRAWS * share * (1 - share)).sqrt().clamp(min=1.0)
    allowed = ERRORS + slack * math.sqrt(DRAWS)
    worst = int(deviation.argmax())
    if float(deviation[worst]) > allowed:
        raise PropertyBroken(
            f"{what} token {int(found.tokens[worst])} came {int(counts[worst])} times of {DRAWS}, and its share of the "
            f"probability is {float(share[worst]):.4f}."
        )
    return f"{float(deviation[worst]):.2g} standard errors, of at most {allowed:.2g}"


def _require_kept(found: First, must: Tensor, may: Tensor, what: str) -> None:
    """`must` [K]: tokens that are kept for certain; `may` [K]: those of which rounding decides, too."""
    if bool((out := (found.counts > 0) & ~may).any()):
        token = int(out.nonzero()[0])
        raise PropertyBroken(
            f"{what} token {int(found.tokens[token])} came, the {token + 1}th by probability, which should be left out."
        )
    if bool((out := (found.counts == 0) & must & (found.logprobs.exp() >= SEEN)).any()):
        token = int(out.nonzero()[0])
        raise PropertyBroken(
            f"{what} token {int(found.tokens[token])} never came: it is the {token + 1}th by probability "
            f"({float(found.logprobs[token].exp()):.3f}) and should be kept."
        )


@check(
    causes="logits multiplied by the temperature, divided twice, or by its square root; or log-probabilities divided by it."
)
def temperature_divides_the_logits_of_a_model(component: Component, seed: int) -> None:
    """At temperature T, log-probabilities of two tokens are 1 / T times as far apart as at 1: of the logits, nothing else."""
    asked = _ask(component, seed)
    tokens = asked.first(few(asked.policy, tokens=1)).tokens[:MOST]
    plain = asked.logprobs(tokens, 1.0)
    for temperature in (0.5, 2.0):
        found = asked.logprobs(tokens, temperature)
        gap = ((found - found[0]) - (plain - plain[0]) / temperature).abs().max()
        # Numbers of one pass, whatever its weights are rounded to: what is left is the rounding of float32.
        if float(gap) > EXACT:
            raise PropertyBroken(
                f"At temperature {temperature:g} the gap of two tokens is off by {float(gap):.3g} nats."
            )
        if float(found.exp().sum()) > 1 + EXACT:
            raise PropertyBroken(f"At temperature {temperature:g} probabilities sum to {float(found.exp().sum()):.4f}.")


@check(
    causes="a temperature that sampling does not read, or that is applied after the tokens were chosen.",
    within=f"{ERRORS:g} standard errors, and what rounding may add",
)
def temperature_changes_how_often_tokens_come(component: Component, seed: int) -> str:
    """Sampled at temperatures .5 and 2, each first token comes as often as its probability at that temperature says."""
    asked = _ask(component, seed)
    told = []
    for temperature in (0.5, 2.0):
        found = asked.first(few(asked.policy, temperature, 1))
        # All but the tokens beyond MOST: their counts and probabilities are left out of both sides.
        rest = DRAWS - int(found.counts.sum())
        if rest > DRAWS // 4:
            continue
        share = found.logprobs.exp()
        whole = First(
            torch.cat([found.tokens, torch.tensor([-1])]),
            torch.cat([found.counts, torch.tensor([rest])]),
            torch.cat([found.logprobs, (1 - share.sum()).clamp(min=1e-12).log()[None]]),
        )
        told.append(_frequencies(whole, asked.slack, f"At temperature {temperature:g}"))
    if not told:
        raise NotApplicable("its first tokens are too many to count")
    return max(told)


@check(
    causes="top_k read as something else, off by one, or not read; ties cut at random; or a sampler that keeps the least likely.",
    within=f"{ERRORS:g} standard errors, and what rounding may add",
)
def top_k_keeps_the_most_likely_tokens(component: Component, seed: int) -> str:
    """With top_k, exactly the k most likely tokens come first, each as often as its share of their probability; with a k as large
    as the vocabulary all do."""
    asked = _ask(component, seed)
    plain = few(asked.policy, tokens=1)
    every = asked.first(plain)
    gaps = -every.logprobs.diff()[1:6]
    if not len(gaps):
        raise NotApplicable("too few tokens come to choose from")
    k = int(gaps.argmax()) + 2
    found = asked.first(dataclasses.replace(plain, top_k=k), every)
    last, following = found.logprobs[k - 1], found.logprobs[k]
    must = (torch.arange(len(found.tokens)) < k) & (found.logprobs > following + asked.slack)
    may = found.logprobs >= last - asked.slack
    what = f"With top_k={k},"
    _require_kept(found, must, may, what)
    kept = found.without(must | (found.counts > 0))
    margin = _frequencies(kept, asked.slack, what)
    most = asked.first(dataclasses.replace(plain, top_k=10**6), every)
    everything = torch.ones_like(most.tokens, dtype=torch.bool)
    _require_kept(most, everything, everything, "With top_k=1000000,")
    return margin


@check(
    causes="a nucleus without the token that crosses top_p or with one more, one of the least likely, or top_p not read.",
    within=f"{ERRORS:g} standard errors, and what rounding may add",
)
def top_p_keeps_the_token_that_crosses_it(component: Component, seed: int) -> str:
    """With top_p, the most likely tokens come until their probability reaches it, the token that crosses it among them, each as
    often as its share; below the first token's probability that token alone comes."""
    asked = _ask(component, seed)
    plain = few(asked.policy, tokens=1)
    every = asked.first(plain)
    likely = every.logprobs.exp()[:5]
    # A token more likely than this would have been drawn: those that were are then the most likely ones there are.
    sizes = [size for size in range(1, len(likely) + 1) if float(likely[size - 1]) >= SEEN]
    if not sizes:
        raise NotApplicable("no first token is likely enough to be surely among the draws")
    told = ""
    for size in sorted({*sizes[:2], sizes[-1]}):
        # In the middle of that token's own share, where rounding does not decide.
        top_p = float(likely[:size].sum() - likely[size - 1] / 2)
        found = asked.first(dataclasses.replace(plain, top_p=top_p), every)
        share = found.logprobs.exp()
        before = share.cumsum(0) - share
        may = before - asked.slack < top_p
        last, following = int(may.sum()) - 1, found.logprobs[may.sum() :]
        must = before + asked.slack < top_p
        if len(following):
            must &= found.logprobs > following[0] + asked.slack
        what = f"With top_p={top_p:.3f},"
        _require_kept(found, must, found.logprobs >= found.logprobs[last] - asked.slack, what)
        kept = found.without(must | (found.counts > 0))
        told = max(told, _frequencies(kept, asked.slack, what))
    return told


@check(causes="top_k=1 that still draws, a temperature that changes the order, or the limit of tokens taken for the k.")
def top_k_of_one_is_greedy(component: Component, seed: int) -> None:
    """With top_k=1 all responses to a prompt are one, whatever the temperature and the generator, and no token is more likely."""
    asked = _ask(component, seed)
    policy, plain = asked.policy, few(asked.policy, tokens=1)
    found = asked.first(dataclasses.replace(plain, top_k=1), asked.first(plain))
    likely = found.logprobs >= found.logprobs[0] - asked.slack
    _require_kept(found, torch.zeros_like(likely), likely, "With top_k=1,")
    # Rounded numbers have ties, and a tie may be decided by the batch.
    if tolerance(component, seed) > EXACT:
        return
    greedy = []
    for temperature, draw in ((1.0, 1), (2.0, 2)):
        sampling = dataclasses.replace(few(policy, temperature), top_k=1)
        rng = Seeds(seed).torch(f"greedy {draw}")
        greedy.append(policy.generate(prompts()[:3], sampling, n=3, rng=rng).samples.sequences)
    one, two = greedy
    rows = one.response_ids.masked_fill(~one.response_mask.bool(), -1)
    if not torch.equal(rows.view(3, 3, -1), rows.view(3, 3, -1)[:, :1].expand(-1, 3, -1)):
        raise PropertyBroken("With top_k=1 responses to one prompt differ.")
    if not (torch.equal(one.response_ids, two.response_ids) and torch.equal(one.response_mask, two.response_mask)):
        raise PropertyBroken("With top_k=1 another temperature and generator give other responses.")
    with torch.no_grad():
        flags = policy.logprobs(one, greedy=True).greedy
    if flags is None or not bool(flags[one.response_mask.bool()].all()):
        raise PropertyBroken("With top_k=1 a token came although another is more likely, by the policy's own pass.")
