"""The policy as a model of transformers for other libraries: the same weights and log-probabilities, another object."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alignbench_hf.architecture.output import without
from torch import Tensor

from alignbench import POLICY, REFERENCE, Policy, Sequences, UserError
from tests import tiny


def policy(kind: str) -> tiny.HFPolicy:
    made = {
        "full": lambda: tiny.scratch(suppress_tokens=["<pad>", "a"]),
        "adapters": tiny.adapters,
        "checkpointed": lambda: tiny.adapters(gradient_checkpointing=True),
    }[kind]()
    made.freeze_reference()
    tiny.move(made)  # from its reference
    return made


every_kind = pytest.mark.parametrize("kind", ["full", "adapters", "checkpointed"])


def logprobs(model: Any, sequences: Sequences) -> Tensor:
    """[B, R], as any other program would ask it."""
    ids = torch.cat([sequences.prompt_ids, sequences.response_ids], 1)
    mask = torch.cat([sequences.prompt_mask, sequences.response_mask], 1).long()
    places = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False).logits[:, :-1]
    found = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    width = sequences.response_ids.shape[1]
    return found[:, -width:].masked_fill(~sequences.response_mask.bool(), 0.0)


@every_kind
def test_it_computes_as_its_role(kind: str) -> None:
    """Both at once: each has an active adapter of its own, and asking them switches nothing of the policy's."""
    own = policy(kind)
    sequences = tiny.sequences(own)
    lent = {role: own.as_transformers(role) for role in (POLICY, REFERENCE)}
    found = {role: logprobs(model, sequences).detach() for role, model in lent.items()}
    for role in (REFERENCE, POLICY):
        with torch.no_grad():
            torch.testing.assert_close(found[role], own.logprobs(sequences, role=role).logprobs, atol=2e-5, rtol=1e-4)
    assert float((found[POLICY] - found[REFERENCE]).abs().max()) > 0.01


@every_kind
def test_its_weights_are_the_policys(kind: str) -> None:
    own = policy(kind)
    sequences, model = tiny.sequences(own), own.as_transformers()
    held = {id(p) for p in model.parameters()}
    assert all(id(p) in held for p in own.trainable())
    logprobs(model, sequences).sum().backward()
    assert all(p.grad is not None for p in own.trainable())
    ours = [p.grad.clone() for p in own.trainable()]
    for parameter in own.trainable():
        parameter.grad = None
    own.logprobs(sequences).logprobs.sum().backward()
    for parameter, grad in zip(own.trainable(), ours, strict=True):
        torch.testing.assert_close(parameter.grad, grad, atol=2e-4, rtol=1e-3)


@every_kind
def test_what_is_done_to_it_the_policy_does_not_notice(kind: str) -> None:
    own = policy(kind)
    sequences, model = tiny.sequences(own), own.as_transformers()
    with torch.no_grad():
        before = own.logprobs(sequences).logprobs
        model.train()
        model.forward = None  # as a library that puts its own in its place
        model.config.pad_token_id = 7
        for module in model.modules():
            module.register_forward_hook(lambda *_: (_ for _ in ()).throw(AssertionError("called")))
        assert torch.equal(own.logprobs(sequences).logprobs, before)
    again = own.as_transformers()
    assert again.config.pad_token_id != 7
    assert not any(module.training for module in again.modules())


def test_suppressed_tokens_have_no_probability() -> None:
    own = policy("full")
    ids = torch.tensor([[own.tokenizer.convert_tokens_to_ids("b")]])
    shares = own.as_transformers()(input_ids=ids).logits.softmax(-1)[0, 0]
    dropped = own.tokenizer.convert_tokens_to_ids(["<pad>", "a"])
    assert shares[dropped].tolist() == [0.0, 0.0]
    assert float(shares.sum()) == pytest.approx(1.0)


def test_where_tokens_cannot_be_suppressed_it_says_so() -> None:
    model = tiny.base_model()
    model.config.final_logit_softcapping = 30.0  # the cap would lift the bias to -30
    with pytest.raises(UserError, match=r"model\.suppress_tokens"):
        without(model, torch.tensor([1]))


def test_a_policy_of_another_kind_says_that_it_has_none() -> None:
    with pytest.raises(UserError, match="not one of transformers"):
        Policy.as_transformers(object())  # type: ignore[arg-type]
