"""Who shares what: copies of a small model, adapters on one base, and peft's silent traps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from alignbench_hf.policy import HFPolicy
from peft import PeftModel
from torch import Tensor

from alignbench import POLICY, REFERENCE, Sampling, Sequences, UserError
from tests import tiny

ROLES = (POLICY, REFERENCE, "reward", "value")


@pytest.fixture(params=["scratch", "adapters"])
def policy(request: pytest.FixtureRequest) -> HFPolicy:
    return getattr(tiny, request.param)()


def with_all_roles(policy: HFPolicy) -> HFPolicy:
    policy.freeze_reference()
    policy.scalar("reward")
    policy.scalar("value", init_from="reward")
    return policy


def of_role(policy: HFPolicy, role: str) -> dict[str, torch.nn.Parameter]:
    return policy._roles.named_parameters(role)


def all_parameters(policy: HFPolicy) -> list[torch.nn.Parameter]:
    """Every weight that lies in memory, heads excluded."""
    return list({id(p): p for role in ROLES for p in policy._roles.use(role).parameters()}.values())


def flags(policy: HFPolicy) -> dict[str, set[bool]]:
    return {role: {p.requires_grad for p in of_role(policy, role).values()} for role in ROLES}


# Both kinds


def test_each_role_has_its_own_parameters(policy: HFPolicy) -> None:
    with_all_roles(policy)
    owned = [id(p) for role in ROLES for p in of_role(policy, role).values()]
    assert len(owned) == len(set(owned)) == 4 * len(policy.trainable())
    assert [*of_role(policy, POLICY)] == [*of_role(policy, "value")], "under the same names"
    heads = [id(p) for role in policy._scalars.values() for p in role.head.parameters()]
    assert len({*owned, *heads}) == len(owned) + len(heads)
    for name, role in policy._scalars.items():
        expected = {*map(id, of_role(policy, name).values()), *map(id, role.head.parameters())}
        assert set(map(id, role.parameters())) == expected


def test_a_new_role_starts_from_the_weights_it_was_told(policy: HFPolicy) -> None:
    policy.freeze_reference()
    tiny.move(policy, seed=5)
    policy.scalar("reward")
    for parameter in of_role(policy, "reward").values():
        parameter.data += 1
    policy.scalar("value", init_from="reward")
    policy.scalar("other")
    for source, role in ((POLICY, "other"), ("reward", "value")):
        pairs = zip(of_role(policy, source).values(), of_role(policy, role).values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert policy.scalars() == ("reward", "value", "other")


@pytest.mark.parametrize("name", [POLICY, REFERENCE, "reward"])
def test_names_are_used_once(policy: HFPolicy, name: str) -> None:
    policy.scalar("reward")
    with pytest.raises(UserError, match=f"{name!r} exists already"):
        policy.scalar(name)


def test_only_trainable_roles_have_gradients_whatever_is_used(policy: HFPolicy) -> None:
    """Adding or using a role neither freezes nor unfreezes another."""
    expected = {POLICY: {True}, REFERENCE: {False}, "reward": {True}, "value": {True}}
    with_all_roles(policy)
    sequences = tiny.sequences(policy)
    assert flags(policy) == expected
    for role in (*ROLES, REFERENCE, POLICY):
        with torch.no_grad():
            policy.logprobs(sequences, role=role)
        assert flags(policy) == expected
    policy.scalar("another")
    policy.freeze_reference()
    assert flags(policy) == expected


def test_an_update_of_one_role_leaves_the_others_alone(policy: HFPolicy) -> None:
    with_all_roles(policy)
    sequences = tiny.sequences(policy)
    with torch.no_grad():
        for p in policy._scalars["value"].head.parameters():
            p.fill_(0.1)
    policy._scalars["value"].values(sequences).sum().backward()
    moved = [role for role in ROLES if any(p.grad is not None for p in of_role(policy, role).values())]
    assert moved == ["value"]
    owned = {id(p) for p in of_role(policy, "value").values()}
    assert all(p.grad is None for p in all_parameters(policy) if id(p) not in owned)


def gradients(loss: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    loss.backward()
    result = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = None
    return result


def test_a_graph_built_before_another_role_still_gets_its_gradient(policy: HFPolicy) -> None:
    """peft's `set_adapter` moves requires_grad: the policy's graph would silently give it no gradient (trap A)."""
    with_all_roles(policy)
    value = policy._scalars["value"]
    with torch.no_grad():
        for p in value.head.parameters():
            p.fill_(0.1)
    sequences, own = tiny.sequences(policy), policy.trainable()
    alone = gradients(policy.logprobs(sequences).logprobs.mean(), own)
    value_alone = gradients(value.values(sequences).mean(), value.parameters())
    assert max(float(g.abs().max()) for g in alone) > 1e-3

    early = policy.logprobs(sequences).logprobs.mean()
    late = value.values(sequences).mean()
    with torch.no_grad():
        policy.logprobs(sequences, role=REFERENCE)
    both = gradients(early + late, [*own, *value.parameters()])
    for expected, got in zip([*alone, *value_alone], both, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_a_block_is_computed_again_as_the_role_of_its_forward_pass() -> None:
    """With gradient checkpointing a block's second pass is in the backward pass, whatever is active then (trap B)."""
    plain, policy = with_all_roles(tiny.adapters()), with_all_roles(tiny.adapters(gradient_checkpointing=True))
    sequences = tiny.sequences(plain)
    for p in (plain, policy):
        tiny.move(p, seed=5)  # the policy is no longer as the value role is
        with torch.no_grad():
            for parameter in p._scalars["value"].head.parameters():
                parameter.fill_(0.1)

    def joint(p: HFPolicy, last: str) -> list[Tensor]:
        value = p._scalars["value"]
        loss = p.logprobs(sequences).logprobs.mean() + value.values(sequences).mean()
        p._roles.use(last)
        return gradients(loss, [*p.trainable(), *value.parameters()])

    passes = []
    block = policy._roles.use(POLICY).model.layers[0].mlp
    hook = block.register_forward_pre_hook(lambda *_: passes.append(policy._roles._active))
    expected = joint(plain, POLICY)
    assert max(float(g.abs().max()) for g in expected) > 1e-3
    for last in ROLES:
        passes.clear()
        for wanted, got in zip(expected, joint(policy, last), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
        assert sorted(passes) == [POLICY, POLICY, "value", "value"], "each block twice"
        assert policy._roles._active == last, "what was active is active again"
    hook.remove()
    with torch.no_grad():
        policy.logprobs(sequences)
    assert not any(module.training for module in policy._roles.use(POLICY).modules())


def test_what_fails_half_way_leaves_no_trace(policy: HFPolicy) -> None:
    with_all_roles(policy)
    sequences, before = tiny.sequences(policy), [p.detach().clone() for p in all_parameters(policy)]
    expected = policy.logprobs(sequences).logprobs.detach()
    modules = [id(m) for m in policy._roles.use(POLICY).modules()]
    with pytest.raises(ZeroDivisionError), policy._roles.sampling(REFERENCE), policy._roles.computing():
        1 / 0  # noqa: B018
    assert [id(m) for m in policy._roles.use(POLICY).modules()] == modules
    assert all(torch.equal(a, b) for a, b in zip(before, all_parameters(policy), strict=True))
    assert flags(policy) == {POLICY: {True}, REFERENCE: {False}, "reward": {True}, "value": {True}}
    assert torch.equal(policy.logprobs(sequences).logprobs, expected)


def test_roles_are_never_in_training_mode(policy: HFPolicy) -> None:
    with_all_roles(policy)
    for role in ROLES:
        assert not any(module.training for module in policy._roles.use(role).modules())


# Adapters


def test_the_reference_is_the_policys_start_and_not_the_bare_base() -> None:
    base = tiny.base_model()
    bare = copy.deepcopy(base)
    policy = tiny.adapters(base)
    policy.freeze_reference()
    sequences = tiny.sequences(policy)
    reference = policy.logprobs(sequences, role=REFERENCE).logprobs
    assert torch.equal(reference, policy.logprobs(sequences).logprobs)
    prompt, response = sequences.prompt_ids[3:4], sequences.response_ids[3:4, :1]
    with torch.no_grad():
        of_base = torch.log_softmax(bare(input_ids=prompt).logits[0, -1], -1)[response[0, 0]]
    assert abs(float(reference[3, 0] - of_base)) > 1e-2


def test_one_base_in_memory() -> None:
    policy = tiny.adapters()
    base = sum(p.numel() for n, p in policy._roles.use(POLICY).named_parameters() if "lora_" not in n)
    adapter = sum(p.numel() for p in policy.trainable())
    with_all_roles(policy)
    assert sum(p.numel() for p in all_parameters(policy)) == base + 4 * adapter
    assert sum(p.numel() for p in all_parameters(policy) if p.requires_grad) == 3 * adapter


def check_base_is_untouched(policy: HFPolicy) -> None:
    """Sampling, scoring and a backward pass: the base has the same bits, and no gradient."""
    with_all_roles(policy)
    named = dict(policy._roles.use(POLICY).named_parameters())
    before = {n: p.detach().clone() for n, p in named.items() if "lora_" not in n}
    for seed in range(3):
        sequences = tiny.sequences(policy, seed=seed)
        policy.logprobs(sequences).logprobs.sum().backward()
        policy._scalars["value"].values(sequences).sum().backward()
        policy.logprobs(sequences, role=REFERENCE)
    for name, value in before.items():
        assert torch.equal(named[name], value), name
        assert named[name].grad is None, name
        assert not named[name].requires_grad, name


def test_the_base_is_untouched() -> None:
    check_base_is_untouched(tiny.adapters())


def test_a_bfloat16_base_has_float32_adapters() -> None:
    policy = tiny.adapters(tiny.base_model(dtype=torch.bfloat16))
    check_base_is_untouched(policy)
    for role in ROLES:
        assert {p.dtype for p in of_role(policy, role).values()} == {torch.float32}
    sequences = tiny.sequences(policy)
    scores = policy.logprobs(sequences, entropy=True)
    assert scores.logprobs.dtype == torch.float32
    grads = torch.autograd.grad(scores.logprobs.sum(), policy.trainable())
    exact = tiny.adapters(tiny.base_model())  # the same adapters and, up to rounding, the same base
    expected = exact.logprobs(sequences)
    assert (scores.logprobs - expected.logprobs).abs().mean() < 0.05
    exact_grads = torch.autograd.grad(expected.logprobs.sum(), exact.trainable())
    flat, exact_flat = (torch.cat([g.flatten() for g in gs]) for gs in (grads, exact_grads))
    assert torch.nn.functional.cosine_similarity(flat, exact_flat, dim=0) > 0.98
    # A step far below bfloat16's resolution is not lost.
    weight = policy.trainable()[0]
    start = weight.detach().clone()
    with torch.no_grad():
        weight += 1e-5
    assert torch.allclose(weight - start, torch.full_like(weight, 1e-5), rtol=0.1)


def test_the_bfloat16_sampler_agrees_with_the_policy() -> None:
    """Merged adapters for sampling, unmerged for scoring: the same model up to bfloat16's rounding."""
    policy = tiny.adapters(tiny.base_model(dtype=torch.bfloat16))
    rollout = policy.generate(tiny.PROMPTS, Sampling(), n=20, rng=torch.Generator().manual_seed(0))
    with torch.no_grad():
        again = policy.logprobs(rollout.samples.sequences).logprobs
    mask = rollout.samples.sequences.response_mask
    assert (rollout.logprobs - again)[mask].abs().mean() < 0.05
    assert abs(float((rollout.logprobs - again)[mask].mean())) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampling_computes_with_the_weights_that_peft_would_merge(dtype: torch.dtype) -> None:
    base = tiny.base_model(dtype=dtype)
    policy = tiny.adapters(copy.deepcopy(base))
    theirs = tiny.adapters(base)
    theirs._roles._peft.merge_adapter()  # type: ignore[attr-defined]
    expected = {n.replace(".base_layer", ""): p for n, p in theirs._roles.use(POLICY).named_parameters()}
    with policy._roles.sampling(POLICY) as model:
        found = dict(model.named_parameters())
        assert not [name for name in found if "lora" in name]
        assert all(torch.equal(weight, expected[name]) for name, weight in found.items())
    assert any("lora" in name for name, _ in policy._roles.use(POLICY).named_parameters())


def test_sampling_beside_the_base_takes_no_copy() -> None:
    """model.merge_adapters=false: slower, for no memory, and the same tokens."""
    merged, beside = tiny.adapters(), tiny.adapters(merge_adapters=False)
    one, other = (tiny.sequences(p, n=4) for p in (merged, beside))
    assert torch.equal(one.response_ids, other.response_ids)
    with beside._roles.sampling(POLICY) as model:
        assert any("lora" in name for name, _ in model.named_parameters())


def test_a_saved_adapter_loads_in_plain_peft(tmp_path: Path) -> None:
    base = tiny.base_model()
    bare = copy.deepcopy(base)
    policy = with_all_roles(tiny.adapters(base))
    tiny.move(policy, seed=4)
    path = policy.save(tmp_path)
    assert path == tmp_path / "adapter"
    assert {f.name for f in path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert not list(path.rglob("*.bin"))
    loaded = PeftModel.from_pretrained(bare, str(path)).eval()
    sequences = tiny.sequences(policy)
    ids = sequences.prompt_ids[3:4]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=ids).logits, policy._roles.use(POLICY)(input_ids=ids).logits, rtol=0, atol=1e-6
        )
        with loaded.disable_adapter():
            away = (loaded(input_ids=ids).logits - policy._roles.use(POLICY)(input_ids=ids).logits).abs().max()
    assert away > 1e-2
    other = tiny.adapters(tiny.base_model(), seed=9)
    other.load(path)
    torch.testing.assert_close(other.logprobs(sequences).logprobs, policy.logprobs(sequences).logprobs)


@pytest.mark.parametrize(
    "other, message",
    [
        (lambda: tiny.adapters(tiny.base_model(layers=3)), "it has .*layers.2"),
        (lambda: tiny.adapters(tiny.base_model(layers=1)), "it lacks .*layers.1"),
        (
            lambda: tiny.adapters(tiny.base_model(hidden=32)),
            r"another model or rank: .*down_proj.lora_B.weight is \[32, 4\], not \[16, 4\]",
        ),
        (lambda: tiny.adapters(rank=2), r"another model or rank"),
        (lambda: tiny.adapters(alpha=2.0), r"made with model.lora_alpha=2, not 8"),
    ],
)
def test_an_adapter_for_another_base_is_refused(tmp_path: Path, other, message: str) -> None:  # type: ignore[no-untyped-def]
    path = other().save(tmp_path)
    policy = tiny.adapters()
    before = [p.detach().clone() for p in policy.trainable()]
    with pytest.raises(UserError, match=message):
        policy.load(path)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.trainable(), strict=True))


def test_an_adapter_of_a_sister_model_is_refused(tmp_path: Path) -> None:
    """Of the same shape everywhere: only the fingerprint of its base tells."""
    policies = [tiny.adapters(seed=seed) for seed in range(3)]
    for policy, fingerprint in zip(policies, ("one", "one", "two"), strict=True):
        policy._fingerprint = fingerprint
    path = policies[0].save(tmp_path)
    policies[1].load(path)
    with pytest.raises(UserError, match="trained on another base than this model"):
        policies[2].load(path)


def test_roles_compute_what_separate_models_would() -> None:
    """One base with four adapters against a model that holds only the role in question."""
    policy = with_all_roles(tiny.adapters())
    for seed, role in enumerate(ROLES):
        generator = torch.Generator().manual_seed(seed)
        for p in of_role(policy, role).values():
            p.data += 0.2 * torch.randn(p.shape, generator=generator)
    sequences: Sequences = tiny.sequences(policy)
    results = []
    for role in (*ROLES, *reversed(ROLES)):
        alone = tiny.adapters()
        for own, value in zip(alone.trainable(), of_role(policy, role).values(), strict=True):
            own.data.copy_(value)
        with torch.no_grad():
            results.append(policy.logprobs(sequences, role=role).logprobs)
            torch.testing.assert_close(results[-1], alone.logprobs(sequences).logprobs, rtol=0, atol=1e-5)
    assert not torch.allclose(results[0], results[1])
