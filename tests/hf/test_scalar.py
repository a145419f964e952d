"""Value and reward roles against their formulas, row by row in float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from alignbench_hf.scalar import LOGPROB_FLOOR, EvidenceHead, HFScalarRole, LinearHead
from torch import Tensor

from alignbench import Sequences, UserError
from tests import tiny


@pytest.fixture(params=["scratch", "adapters"])
def make(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    return getattr(tiny, request.param)


@pytest.fixture(params=["linear", "evidence"])
def head(request: pytest.FixtureRequest) -> str:
    return request.param


def disturb(role: HFScalarRole, *, gate: float = 1.0, seed: int = 0) -> None:
    """Random weights in the head, and the role's base moved away from the policy's."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in role._base.values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in role.head.named_parameters():
            size = gate if name.startswith("gate") else 0.5
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))


def states(policy: HFPolicy, sequences: Sequences, row: int, name: str) -> tuple[list[Tensor], list[float], float]:
    """By a forward of this row alone: the state before each response token and after the last; each token's log p; the mean of log p
    over what may come first."""
    prompt = sequences.prompt_ids[row][sequences.prompt_mask[row]]
    response = sequences.response_ids[row][sequences.response_mask[row]]
    model = policy._roles.use(name)
    with torch.no_grad():
        ids = torch.cat([prompt, response])[None]
        hidden = model.base_model(input_ids=ids).last_hidden_state[0, len(prompt) - 1 :].double()
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
    nats = [float(logits[t, token] - logits[t].exp().sum().log()) for t, token in enumerate(response.tolist())]
    first = logits[0].log_softmax(-1)
    return list(hidden), nats, float((first.exp() * first).sum())


def reference(role: HFScalarRole, hidden: list[Tensor], nats: list[float], expected: float) -> list[float]:
    """v . h_t + b, and for evidence c * sum_{s < t} softmax(g)_s max(log p_s, floor), g read after token s; at t = 0 the mean of log p
    over all tokens that may follow."""
    read, bias = role.head.read.weight[0].detach().double(), float(role.head.read.bias.detach())
    values = [float(read @ h) + bias for h in hidden]
    if isinstance(role.head, EvidenceHead):
        gate, gate_bias = role.head.gate.weight[0].detach().double(), float(role.head.gate.bias.detach())
        gates = [float(gate @ h) + gate_bias for h in hidden[1:]]
        values[0] += float(role.head.scale.detach()) * max(expected, LOGPROB_FLOOR)
        for t in range(1, len(values)):
            top = max(gates[:t])
            weights = [math.exp(g - top) for g in gates[:t]]
            evidence = sum(w * max(n, LOGPROB_FLOOR) for w, n in zip(weights, nats[:t], strict=True)) / sum(weights)
            values[t] += float(role.head.scale.detach()) * evidence
    return values


@pytest.mark.parametrize("gate", [1.0, 30.0])
def test_values_by_their_formula(make, head: str, gate: float) -> None:  # type: ignore[no-untyped-def]
    """Also where one token outweighs all others by far, in either direction, at any place."""
    policy = make(scalar_head=head)
    role = policy.scalar("value")
    disturb(role, gate=gate)
    sequences = tiny.sequences(policy, n=4)
    values = role.values(sequences)
    assert (values.shape, values.dtype) == ((24, sequences.response_ids.shape[1] + 1), torch.float32)
    for row in range(len(sequences)):
        expected = reference(role, *states(policy, sequences, row, "value"))
        torch.testing.assert_close(
            values[row, : len(expected)].detach().double(), torch.tensor(expected).double(), rtol=1e-4, atol=2e-4
        )


def test_a_fresh_head_reads_nothing_off_the_state(make, head: str) -> None:  # type: ignore[no-untyped-def]
    """Zero everywhere, or with evidence the mean log-probability of what has been read, and before that of what may follow: what its
    next value is on average."""
    policy = make(scalar_head=head)
    role = policy.scalar("value")
    sequences = tiny.sequences(policy)
    values, logprobs = role.values(sequences).detach(), policy.logprobs(sequences).logprobs.detach()
    mask = sequences.response_mask
    read = logprobs.clamp(min=LOGPROB_FLOOR).cumsum(1) / torch.arange(1, mask.shape[1] + 1)
    expected = torch.zeros_like(values[:, 1:]) if head == "linear" else read
    torch.testing.assert_close(values[:, 1:][mask], expected[mask], rtol=0, atol=1e-4)
    if head == "linear":
        assert (values[:, 0] == 0).all()
        return
    entropy = policy.logprobs(sequences, entropy=True).entropy
    assert entropy is not None
    torch.testing.assert_close(values[:, 0], -entropy[:, 0], rtol=0, atol=1e-4)
    assert float(values[:, 0].max()) < -1, "a base that is nowhere near certain"


@pytest.mark.parametrize("gate", [1.0, 30.0])
def test_a_value_does_not_see_the_future(head: str, gate: float) -> None:
    """Other tokens from place t on leave columns up to t as they were: they are read before token t."""
    policy = tiny.scratch(scalar_head=head)
    role = policy.scalar("value")
    disturb(role, gate=gate)
    rng = torch.Generator().manual_seed(1)
    prompts = policy.encode(tiny.PROMPTS * 4, ["a"] * 24).sequences
    ids = torch.randint(2, 12, (24, 6), generator=rng)
    full = torch.ones(24, 6, dtype=torch.bool)
    values = role.values(Sequences(prompts.prompt_ids, prompts.prompt_mask, ids, full))
    for t in range(6):
        other = ids.clone()
        other[:, t:] = torch.randint(2, 12, (24, 6 - t), generator=rng)
        changed = role.values(Sequences(prompts.prompt_ids, prompts.prompt_mask, other, full))
        torch.testing.assert_close(changed[:, : t + 1], values[:, : t + 1], rtol=0, atol=1e-4)
        assert (changed[:, t + 1 :] - values[:, t + 1 :]).abs().max() > 1e-2


def test_rescaled_values_are_in_the_new_unit(make, head: str) -> None:  # type: ignore[no-untyped-def]
    """Every value, and those of a role that starts from it."""
    policy = make(scalar_head=head)
    role = policy.scalar("reward")
    disturb(role)
    sequences = tiny.sequences(policy)
    before = role.values(sequences).detach()
    role.rescale(-1.5, 2.5)
    for values in (role.values(sequences), policy.scalar("value", init_from="reward").values(sequences)):
        torch.testing.assert_close(values.detach(), (before + 1.5) / 2.5, rtol=1e-4, atol=1e-4)


def test_batches_and_gradient_mode_change_nothing(make, head: str) -> None:  # type: ignore[no-untyped-def]
    policy = make(scalar_head=head, scoring_batch_size=1)
    role = policy.scalar("value")
    disturb(role)
    sequences = tiny.sequences(policy)
    with_gradient = role.values(sequences)
    with torch.no_grad():
        without = role.values(sequences)
    assert with_gradient.requires_grad
    assert not without.requires_grad
    defined = torch.nn.functional.pad(sequences.response_mask, (1, 0), value=True)
    torch.testing.assert_close(without[defined], with_gradient[defined].detach(), rtol=0, atol=1e-4)


def test_every_parameter_is_trained(make, head: str) -> None:  # type: ignore[no-untyped-def]
    policy = make(scalar_head=head)
    role = policy.scalar("value")
    disturb(role)
    sequences = tiny.sequences(policy)
    defined = torch.nn.functional.pad(sequences.response_mask, (1, 0), value=True)
    grads = torch.autograd.grad((role.values(sequences) ** 2)[defined].sum(), role.parameters(), allow_unused=True)
    missing = [name for name, g in zip(role._named(), grads, strict=True) if g is None or not g.abs().max() > 0]
    # a linear head reads the hidden state alone, so that an untied output layer has no part in it
    assert not [name for name in missing if "lm_head" not in name]


def test_a_role_started_from_another_is_its_copy_and_then_its_own(make, head: str) -> None:  # type: ignore[no-untyped-def]
    policy = make(scalar_head=head)
    reward = policy.scalar("reward")
    disturb(reward)
    value = policy.scalar("value", init_from="reward")
    sequences = tiny.sequences(policy)
    before = reward.values(sequences).detach()
    assert torch.equal(value.values(sequences).detach(), before)
    optimizer = torch.optim.SGD(value.parameters(), lr=0.1)
    value.values(sequences).mean().backward()
    optimizer.step()
    assert torch.equal(reward.values(sequences).detach(), before)
    assert not torch.equal(value.values(sequences).detach(), before)


def test_a_value_on_the_policys_own_trunk(make, head: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Only its head is its own; it reads the policy as it stands, and its loss reaches the policy's weights."""
    policy = make(scalar_head=head, value_trunk="shared")
    reward = policy.scalar("reward")
    disturb(reward)
    value = policy.scalar("value", init_from="reward")
    assert [id(p) for p in value.parameters()] == [id(p) for p in value.head.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(value.parameters(), reward.head.parameters(), strict=True))
    disturb(value, seed=2)
    tiny.move(policy, seed=4)
    sequences = tiny.sequences(policy)
    values = value.values(sequences)
    for row in (0, 3):
        expected = reference(value, *states(policy, sequences, row, "policy"))
        torch.testing.assert_close(
            values[row, : len(expected)].detach().double(), torch.tensor(expected).double(), rtol=1e-4, atol=2e-4
        )
    values.sum().backward()
    assert max(float(p.grad.abs().max()) for p in policy.trainable() if p.grad is not None) > 1e-3
    assert all(p.grad is None for p in reward.parameters())
    value.save(tmp_path)
    other = make(scalar_head=head, value_trunk="shared").scalar("value")
    other.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), value.parameters(), strict=True))


def test_a_value_on_the_policys_own_trunk_is_read_in_one_pass(make, head: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """With and without gradients, in pieces too, and the gradients are those of two passes."""
    policy = make(scalar_head=head, value_trunk="shared", scoring_batch_size=5)
    value = policy.scalar("value")
    disturb(value)
    sequences = tiny.sequences(policy)
    weights = torch.randn(sequences.response_ids.shape, generator=torch.Generator().manual_seed(3))
    passes = []
    honest = type(policy)._states
    monkeypatch.setattr(type(policy), "_states", lambda *args: passes.append(1) or honest(*args))

    def measured(together: bool) -> list[Tensor]:
        for parameter in (*policy.trainable(), *value.parameters()):
            parameter.grad = None
        if together:
            scores, values = policy.logprobs_and_values(sequences, value, temperature=0.7, entropy=True)
        else:
            scores = policy.logprobs(sequences, temperature=0.7, entropy=True)
            values = value.values(sequences)
        inside = values[:, :-1] * sequences.response_mask
        found = [scores.logprobs, scores.entropy, inside]
        if torch.is_grad_enabled():
            ((scores.logprobs + inside) * weights).sum().backward()
            found += [parameter.grad for parameter in (*policy.trainable(), *value.parameters())]
        return [part.detach().clone() for part in found]

    for context, count in ((torch.enable_grad(), 1), (torch.no_grad(), -(-len(sequences) // 5))):
        with context:
            passes.clear()
            one = measured(together=True)
            assert len(passes) == count
            for mine, theirs in zip(one, measured(together=False), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert not make(scalar_head=head).scalar("value").reads_policy


def test_save_and_load(make, head: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    policy = make(scalar_head=head)
    role = policy.scalar("reward")
    disturb(role)
    role.save(tmp_path / "new" / "folder")
    assert [f.name for f in (tmp_path / "new" / "folder").iterdir()] == ["scalar.safetensors"]
    sequences = tiny.sequences(policy)
    other = make(scalar_head=head).scalar("value")
    assert not torch.equal(other.values(sequences), role.values(sequences))
    other.load(tmp_path / "new" / "folder")
    assert torch.equal(other.values(sequences), role.values(sequences))


def test_another_kind_of_role_is_refused(tmp_path: Path) -> None:
    role = tiny.scratch(scalar_head="evidence").scalar("reward")
    role.save(tmp_path)
    for other in (tiny.scratch(), tiny.adapters(), tiny.scratch(scalar_head="evidence", intermediate_size=1)):
        target = other.scalar("reward")
        before = [p.detach().clone() for p in target.parameters()]
        with pytest.raises(UserError, match="made for another"):
            target.load(tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))


def test_heads_alone() -> None:
    """States of padding, however large, do not reach a value inside; an empty response has one."""
    torch.manual_seed(0)
    output = torch.nn.Linear(4, 12, bias=False)
    for kind in (LinearHead, EvidenceHead):
        reader = kind(4)
        for parameter in reader.parameters():
            torch.nn.init.normal_(parameter)
        mask = torch.tensor([[True, True, False], [False, False, False]])
        shown = Sequences(torch.ones(2, 1).long(), torch.ones(2, 1).bool(), torch.tensor([[4, 5, 0], [0, 0, 0]]), mask)
        hidden = torch.randn(2, 4, 4)
        large = hidden.clone()
        large[0, 3], large[1, 1:] = 1e3, -1e3
        inside = torch.nn.functional.pad(mask, (1, 0), value=True)
        expected, got = reader(hidden, output, shown), reader(large, output, shown)
        torch.testing.assert_close(got[inside], expected[inside])
        assert torch.isfinite(expected).all()
        assert torch.isfinite(got).all()
