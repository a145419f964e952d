"""Checks of a model: that what a policy says of itself is what transformers says of the same weights, and that its roles,
its padding, its ends of turns and its files do what the contract says.

They ask for a few hundred short responses: a model of a hundred million parameters is checked in a minute on a CPU.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from alignbench.contracts import Policy, ScalarRole
from alignbench.plugins import Component
from alignbench.records import POLICY, REFERENCE, Sequences
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.model_trial import (
    CLOSE,
    EXACT,
    alone,
    backward,
    build,
    exported,
    few,
    letters,
    margin,
    measured,
    move,
    padded,
    prompts,
    require_close,
    sampled,
    step_along,
    tolerance,
    trimmed,
)

DRAWS = 1024
"""First tokens drawn from one distribution, to compare how often each comes with its probability."""
ERRORS = 5.0
"""Standard errors that a token's count may be off."""
RISE_OFF, ROUNDED_RISE_OFF = 0.05, 0.4
"""Of the rise that a gradient promises: in float32, and where weights are rounded to fewer bits."""
check = CheckList()


# What it computes


@check(
    causes="a cap or a scale of the logits left out, positions counted from the padding, or an adapter that is not merged.",
    within=CLOSE,
)
def logprobs_are_those_of_transformers(component: Component, seed: int) -> str:
    """Exported and loaded by transformers alone, the model gives each sampled token the same log-probability."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    policy = build(component, seed)
    sequences = sampled(policy, seed)
    own = measured(policy, sequences)
    with exported(policy) as (folder, done):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True).eval()
        suppressed = GenerationConfig.from_pretrained(folder).suppress_tokens or []
        expected = torch.zeros_like(own)
        for row in range(len(sequences)):
            asked, answer = alone(sequences, row)
            with torch.no_grad():
                logits = model(input_ids=torch.cat([asked, answer])[None]).logits[0, len(asked) - 1 : -1].float()
            logits[:, suppressed] = -torch.inf
            expected[row, : len(answer)] = logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]
    bound = done.tolerance
    what = "Loaded by transformers it gives other log-probabilities"
    return margin(bound, require_close(own, expected, sequences.response_mask, bound, what))


@check(
    causes="temperature applied twice or to the log-probabilities, an adapter missing in one of the two, or a stale cache.",
    within=CLOSE,
)
def sampled_logprobs_are_those_that_it_computes(component: Component, seed: int) -> str:
    """What sampling says of its tokens is what a pass over them says, at any temperature, of the policy and of its reference."""
    policy = build(component, seed)
    bound, shares = tolerance(component, seed), []
    for role, temperature in itertools.product((POLICY, REFERENCE), (1.0, 0.6)):
        rng = Seeds(seed).torch(f"{role} {temperature}")
        rollout = policy.generate(prompts(), few(policy, temperature), n=2, role=role, rng=rng)
        sequences = rollout.samples.sequences
        found = measured(policy, sequences, role=role, temperature=temperature)
        what = f"As {role} at temperature {temperature:g}, sampling and scoring differ"
        shares.append(require_close(rollout.logprobs, found, sequences.response_mask, bound, what))
    return margin(bound, *shares)


@check(
    causes="an off-by-one in the inverse of the distribution, tokens drawn before the temperature, or chances that repeat.",
    within=f"{ERRORS:g} standard errors, and what rounding may add",
)
def tokens_come_as_often_as_their_probability_says(component: Component, seed: int) -> str:
    """Of many first tokens, each comes as often as its probability says."""
    policy = build(component, seed, moved=False)
    prompt = prompts()[1]
    rng = Seeds(seed).torch("frequencies")
    first = policy.generate([prompt], few(policy, tokens=1), n=DRAWS, rng=rng).samples.sequences.response_ids[:, 0]
    tokens, counts = first.unique(return_counts=True)
    most = counts.argsort(descending=True)[:20]
    tokens, counts = tokens[most], counts[most].double()
    given = policy.given([prompt] * len(tokens), [[int(token)] for token in tokens])
    probability = measured(policy, given)[:, 0].double().exp()
    deviation = (counts - DRAWS * probability).abs() / (DRAWS * probability * (1 - probability)).sqrt().clamp(min=1.0)
    worst = int(deviation.argmax())
    # A rounded pass may be as far off as its tolerance, and that is no fault of the draw.
    allowed = ERRORS + tolerance(component, seed) * math.sqrt(DRAWS)
    if float(deviation.max()) > allowed:
        raise PropertyBroken(
            f"Token {int(tokens[worst])} came {int(counts[worst])} times of {DRAWS}, and its probability is "
            f"{float(probability[worst]):.4f}."
        )
    return f"{float(deviation.max()):.2g} standard errors, of at most {allowed:.2g}"


@check(causes="a global generator, or chances that depend on the batch that a row is decoded in.")
def sampling_depends_on_its_generator_alone(component: Component, seed: int) -> None:
    """The same generator gives the same responses, whatever the global generator holds; another gives others."""
    policy = build(component, seed)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = sampled(policy, seed)
        torch.manual_seed(2)
        two = sampled(policy, seed)
    if not torch.equal(one.response_ids, two.response_ids):
        raise PropertyBroken("Two rollouts with the same generator differ.")
    if torch.equal(one.response_ids, sampled(policy, seed + 1).response_ids):
        raise PropertyBroken("Two rollouts with different generators are the same.")


@check(
    causes="positions counted from the padding, an attention mask left out, or rows sorted and not put back.",
    within=CLOSE,
)
def a_row_does_not_depend_on_its_batch(component: Component, seed: int) -> str:
    """A row alone, among others, and with more padding that holds other tokens, has the same log-probabilities."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    whole, mask = measured(policy, sequences), sequences.response_mask
    bound = tolerance(component, seed)
    wide = padded(sequences, left=3, right=2, fill=int(sequences.response_ids.max()))
    what = "More padding makes a difference"
    shares = [require_close(measured(policy, wide)[:, : whole.shape[1]], whole, mask, bound, what)]
    for row in range(0, len(sequences), 3):
        single = trimmed(sequences.select(torch.tensor([row])))
        found, length = measured(policy, single), single.response_ids.shape[1]
        expected, what = whole[row : row + 1, :length], f"Row {row} alone differs"
        shares.append(require_close(found, expected, single.response_mask, bound, what))
    return margin(bound, *shares)


# How it learns


@check(causes="dropout that is on in training mode, or on again under gradient checkpointing.", within=CLOSE)
def dropout_is_off(component: Component, seed: int) -> str:
    """Two passes with gradients give the same log-probabilities and the same gradients, and those of a pass without."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    (one, by_one), (two, by_two) = backward(policy, sequences), backward(policy, sequences)
    if not torch.equal(one, two) or not all(map(torch.equal, by_one, by_two)):
        raise PropertyBroken("Two passes with gradients differ.")
    what = "With gradients and without, log-probabilities differ"
    bound = tolerance(component, seed)
    return margin(bound, require_close(one, measured(policy, sequences), sequences.response_mask, bound, what))


@check(
    causes="weights that are handed out as trainable and not used, such as adapters of an embedding, or a detached state."
)
def every_trainable_weight_learns(component: Component, seed: int) -> None:
    """Every weight that is handed out as trainable gets a gradient that is finite and not zero."""
    policy = build(component, seed)
    _, gradients = backward(policy, sampled(policy, seed))
    for number, gradient in enumerate(gradients):
        if not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
            what = "zero" if bool(torch.isfinite(gradient).all()) else "not finite"
            raise PropertyBroken(
                f"Of {len(gradients)} tensors, number {number}, {list(gradient.shape)}, has a gradient that is {what}."
            )


@check(
    causes="a wrong product in a layer's own backward pass, or an output that was written over before it was read again.",
    within=f"off by at most {RISE_OFF:g} of the rise, {ROUNDED_RISE_OFF:g} where weights are rounded to fewer bits",
)
def gradients_are_those_of_its_logprobs(component: Component, seed: int) -> str:
    """A small step along the gradient raises the log-probability by what the gradient says."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    _, gradients = backward(policy, sequences)
    square = sum(float(gradient.double().pow(2).sum()) for gradient in gradients)
    exact = tolerance(component, seed) <= EXACT
    # So far that rounding does not hide the rise, and no further: the rise is that of a straight line only near by.
    wanted = 0.02 if exact else 0.02 * float(sequences.response_mask.sum())
    step_along(policy, gradients, wanted / square)
    above = float(measured(policy, sequences).double().sum())
    step_along(policy, gradients, -2 * wanted / square)
    rise = (above - float(measured(policy, sequences).double().sum())) / 2
    off, allowed = abs(rise / wanted - 1), RISE_OFF if exact else ROUNDED_RISE_OFF
    if not off <= allowed:
        raise PropertyBroken(
            f"A step along the gradient that should raise the log-probabilities by {wanted:.3g} nats raised them by {rise:.3g}."
        )
    return f"off by {off:.2g}, of at most {allowed:g}"


@check(causes="a reference that shares the policy's weights, or an adapter that is not switched.")
def roles_are_independent(component: Component, seed: int) -> None:
    """When the policy moves, the reference and a scalar role stay; when the scalar role moves, the policy and the reference do."""
    policy = build(component, seed, moved=False)
    sequences = sampled(policy, seed)
    scalar = policy.scalar("checked")
    before = _all(policy, scalar, sequences)
    if not torch.equal(before[0], before[1]):
        raise PropertyBroken("The reference differs from the policy that it was made from.")
    move(policy, seed)
    after = _all(policy, scalar, sequences)
    if torch.equal(before[0], after[0]):
        raise PropertyBroken("The policy's weights moved, and its log-probabilities did not.")
    _require_same(before[1:], after[1:], ("reference", "scalar role"), "the policy moved")
    rng = Seeds(seed).torch("scalar")
    with torch.no_grad():
        for parameter in scalar.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng).to(parameter), alpha=0.1)
    moved = _all(policy, scalar, sequences)
    _require_same(after[:2], moved[:2], ("policy", "reference"), "the scalar role moved")
    if torch.equal(after[2], moved[2]):
        raise PropertyBroken("The scalar role's weights moved, and its values did not.")


def _all(policy: Policy, scalar: ScalarRole, sequences: Sequences) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        values = scalar.values(sequences)[:, 1:].masked_fill(~sequences.response_mask.bool(), 0.0)
    return measured(policy, sequences), measured(policy, sequences, role=REFERENCE), values


def _require_same(before: Sequence[Tensor], after: Sequence[Tensor], names: Sequence[str], when: str) -> None:
    for name, one, two in zip(names, before, after, strict=True):
        if not torch.equal(one, two):
            raise PropertyBroken(f"The {name} changed when {when}.")


# Ends of turns, and files


@check(causes="an end of turn that is cut off with the response, or counted as one where the text was cut.")
def a_response_at_the_limit_is_whole(component: Component, seed: int) -> None:
    """A response whose end of turn is the last token that the limit allows is finished; one token more, and it is cut."""
    config = component.config()
    prompt = prompts()[0]
    room = int(build(component, seed, moved=False).encode([prompt], ["a b"]).sequences.response_mask.sum())
    for limit, whole in ((room, True), (room - 1, False)):
        narrow = (
            dataclasses.replace(config, max_response_tokens=limit) if hasattr(config, "max_response_tokens") else None
        )
        if narrow is None:
            raise NotApplicable("its config has no max_response_tokens")
        policy: Policy = component.load()(
            narrow, tokenizer=letters(), device=torch.device("cpu"), seeds=Seeds(seed).child("model")
        )
        samples = policy.encode([prompt], ["a b"])
        length, finished = int(samples.sequences.response_mask.sum()), bool(samples.finished[0])
        if finished is not whole or length != limit:
            raise PropertyBroken(
                f"A response of {room} tokens under a limit of {limit} has {length} and is {'' if finished else 'not '}finished."
            )


@check(causes="a tensor left out of the file, or numbers rounded on the way.")
def saved_and_loaded_it_is_the_same(component: Component, seed: int) -> None:
    """Saved, moved and loaded again, and loaded into one that was built anew, it gives the same log-probabilities bit for bit."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    before = measured(policy, sequences)
    with tempfile.TemporaryDirectory() as folder:
        path = policy.save(Path(folder))
        move(policy, seed + 1)
        if torch.equal(measured(policy, sequences), before):
            raise PropertyBroken("Other weights give the same log-probabilities.")
        policy.load(path)
        again = build(component, seed, moved=False)
        again.load(path)
        for name, found in (("it", policy), ("another policy", again)):
            if not torch.equal(measured(found, sequences), before):
                gap = float((measured(found, sequences) - before).abs().max())
                raise PropertyBroken(f"Loaded again, {name} differs by {gap:.3g} nats.")
