"""Checks of roles: what a reference and a scalar role start from, that they share nothing that is trained, and their files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from alignbench.contracts import Policy, ScalarRole
from alignbench.plugins import Component
from alignbench.records import POLICY, REFERENCE, Sequences
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, PropertyBroken
from alignbench.testing.model_trial import (
    CLOSE,
    build,
    few,
    margin,
    measured,
    move,
    prompts,
    require_close,
    sampled,
    shake,
    tolerance,
)

SHIFT, SCALE = 0.7, 2.5
"""Of a rescaled role: neither is its own opposite or inverse."""
VALUE_OFF = 1e-4
"""Of the largest value."""
FAR = 0.5
"""Noise on a scalar role's weights, as a share of their size: its head is then not zero, and every part of it shows."""
FLOOR = -6.0
"""Nats. A head that reads log-probabilities may bound those of tokens that are less likely."""
check = CheckList()


def values(role: ScalarRole, sequences: Sequences) -> Tensor:
    """[B, R + 1], 0 in columns that are undefined."""
    mask = sequences.response_mask.bool()
    with torch.no_grad():
        return role.values(sequences).masked_fill(~torch.cat([torch.ones_like(mask[:, :1]), mask], 1), 0.0)


@check(
    causes="a reference that is made once and kept, or one that sampling still reads from a copy made before.",
    within=CLOSE,
)
def a_second_freeze_takes_the_policy_as_it_is_then(component: Component, seed: int) -> str:
    """Frozen again, the reference is the policy as it stands then, in scoring and in sampling; it stays so when the policy moves on."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    before = measured(policy, sequences, role=REFERENCE)
    policy.generate(prompts()[:2], few(policy), role=REFERENCE, rng=Seeds(seed).torch("first reference"))
    policy.freeze_reference()
    own, found = measured(policy, sequences), measured(policy, sequences, role=REFERENCE)
    if torch.equal(found, before):
        raise PropertyBroken("Frozen a second time, the reference is that of the first time.")
    if not torch.equal(found, own):
        raise PropertyBroken(
            f"The second reference differs from the policy by {float((found - own).abs().max()):.3g} nats."
        )
    move(policy, seed + 1)
    if not torch.equal(measured(policy, sequences, role=REFERENCE), found):
        raise PropertyBroken("The second reference changed when the policy moved.")
    rng = Seeds(seed).torch("second reference")
    rollout = policy.generate(prompts(), few(policy), role=REFERENCE, rng=rng)
    new, bound = rollout.samples.sequences, tolerance(component, seed)
    scored = measured(policy, new, role=REFERENCE)
    what = "Sampled from the second reference, log-probabilities are not its own"
    return margin(bound, require_close(rollout.logprobs, scored, new.response_mask, bound, what))


@check(
    causes="a head that starts at random or at one, or a body from the reference or from the weights that the policy began with."
)
def a_scalar_role_starts_from_the_policy(component: Component, seed: int) -> None:
    """A new scalar role has the policy's present weights and a head of zeros: values of 0, or, where a head reads the
    policy's own log-probabilities, a mean of those of the tokens read so far. Moved alike, it equals that of a policy with the same weights, and no other's."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    twin, early = build(component, seed, moved=False), build(component, seed, moved=False)
    with torch.no_grad():
        for parameter, source in zip(twin.trainable(), policy.trainable(), strict=True):
            parameter.copy_(source)
    twin.freeze_reference()
    one, same, other = (which.scalar("checked") for which in (policy, twin, early))
    fresh = values(one, sequences)
    if bool(fresh.any()):
        _require_mean_of_logprobs(policy, sequences, fresh, tolerance(component, seed))
    _require_equal(values(policy.scalar("again"), sequences), fresh, "Two new scalar roles of one policy")
    for role in (one, same, other):
        shake(role.parameters(), seed, FAR)
    moved = values(one, sequences)
    _require_equal(values(same, sequences), moved, "Scalar roles of two policies with the same weights, moved alike,")
    if torch.equal(values(other, sequences), moved):
        raise PropertyBroken("A scalar role is the same whatever weights the policy has when it is made.")


@check(
    causes="a head that is not copied, or copied as it was at first; a body from the policy; or a scale that is left behind."
)
def a_scalar_role_starts_from_another(component: Component, seed: int) -> None:
    """Started from another scalar role, trained and rescaled, a role gives that role's values bit for bit; scalars() names both."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    source = policy.scalar("checked")
    shake(source.parameters(), seed, FAR)
    source.rescale(SHIFT, SCALE)
    found = policy.scalar("copied", init_from="checked")
    if not torch.equal(one := values(found, sequences), two := values(source, sequences)):
        raise PropertyBroken(
            f"A role started from another differs by {float((one - two).abs().max()):.3g} in its values."
        )
    if sorted(policy.scalars()) != ["checked", "copied"]:
        raise PropertyBroken(f"scalars() gives {policy.scalars()} where there are 'checked' and 'copied'.")


@check(
    causes="one head or one adapter for all scalar roles, or a role that holds what it was started from in place of a copy."
)
def scalar_roles_share_nothing(component: Component, seed: int) -> None:
    """When one scalar role moves or is rescaled, the policy, the reference and the other roles stay, that which was started from it and
    that which it was started from among them."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    roles = {name: policy.scalar(name) for name in ("first", "second")}
    shake(roles["first"].parameters(), seed, FAR)
    roles["third"] = policy.scalar("third", init_from="first")
    before = _everything(policy, roles, sequences)
    for number, (name, role) in enumerate(roles.items()):
        for what in ("moved", "was rescaled"):
            if what == "moved":
                shake(role.parameters(), seed + number, FAR)
            else:
                role.rescale(SHIFT, SCALE)
            after = _everything(policy, roles, sequences)
            for each, now in after.items():
                if torch.equal(before[each], now) is (each == name):
                    raise PropertyBroken(
                        f"When the {name} scalar role {what}, its values did not."
                        if each == name
                        else f"When the {name} scalar role {what}, {each} changed."
                    )
            before = after


def _everything(policy: Policy, roles: Mapping[str, ScalarRole], sequences: Sequences) -> dict[str, Tensor]:
    scores = {f"the {role}": measured(policy, sequences, role=role) for role in (POLICY, REFERENCE)}
    return scores | {name: values(role, sequences) for name, role in roles.items()}


@check(
    causes="a shift that is divided once more or not at all, a scale that multiplies, or a part of the values that is not scaled.",
    within=f"{VALUE_OFF:g} of the largest value",
)
def rescaled_values_are_shifted_and_scaled(component: Component, seed: int) -> str:
    """rescale(shift, scale) makes every value (value - shift) / scale, and a second time too."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    role = policy.scalar("checked")
    shake(role.parameters(), seed, FAR)
    mask = sequences.response_mask.bool()
    defined = torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
    worst = 0.0
    for shift, scale in ((SHIFT, SCALE), (-1.5, 0.4)):
        before = values(role, sequences)[defined]
        role.rescale(shift, scale)
        expected = (before - shift) / scale
        gap = (values(role, sequences)[defined] - expected).abs().max() / expected.abs().max()
        if not float(gap) <= VALUE_OFF:
            raise PropertyBroken(
                f"After rescale({shift:g}, {scale:g}) values are off by {float(gap):.3g} of the largest."
            )
        worst = max(worst, float(gap))
    return f"{worst:.2g} of the largest value, of at most {VALUE_OFF:g}"


@check(causes="a head, an adapter or a scale that is left out of the file, or a file that is not read.")
def a_scalar_role_saved_and_loaded_is_the_same(component: Component, seed: int) -> None:
    """Saved, trained and rescaled as it is, and loaded into a new role, a scalar role gives the same values bit for bit."""
    policy = build(component, seed)
    sequences = sampled(policy, seed)
    role = policy.scalar("checked")
    shake(role.parameters(), seed, FAR)
    role.rescale(SHIFT, SCALE)
    with tempfile.TemporaryDirectory() as folder:
        role.save(Path(folder))
        again = policy.scalar("loaded")
        again.load(Path(folder))
    if not torch.equal(one := values(again, sequences), two := values(role, sequences)):
        raise PropertyBroken(f"Loaded again, its values differ by {float((one - two).abs().max()):.3g}.")


def _require_mean_of_logprobs(policy: Policy, sequences: Sequences, fresh: Tensor, slack: float) -> None:
    """Before the first token: what the policy expects of it, minus its entropy."""
    with torch.no_grad():
        scores = policy.logprobs(sequences, entropy=True)
    assert scores.entropy is not None, "asked for"
    lowest, highest = scores.logprobs.cummin(1).values, scores.logprobs.cummax(1).values
    expected = -scores.entropy[:, :1]
    lowest, highest = torch.cat([expected, lowest], 1), torch.cat([expected, highest], 1)
    mask = sequences.response_mask.bool()
    read = torch.cat([torch.ones_like(mask[:, :1]), mask], 1) & (lowest > FLOOR)
    outside = torch.maximum(lowest - fresh, fresh - highest)
    outside[:, 0] = torch.minimum(outside[:, 0], fresh[:, 0].abs())
    if bool((outside[read] > slack).any()):
        raise PropertyBroken(
            f"A new role's values are up to {float(outside[read].max()):.3g} away from any mean of the policy's own "
            "log-probabilities, and are not 0: its head is not zero."
        )


def _require_equal(one: Tensor, two: Tensor, what: str) -> None:
    gap = float((one - two).abs().max())
    if not gap <= VALUE_OFF * max(1.0, float(two.abs().max())):
        raise PropertyBroken(f"{what} differ by {gap:.3g} in their values.")
