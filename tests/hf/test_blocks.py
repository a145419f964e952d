"""Blocks by one compiled code: the losses and gradients of operators one by one, for every role, and those where it cannot be."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from alignbench_hf.config import BLOCKS, PretrainedConfig
from alignbench_hf.policy import HFPolicy
from torch import Tensor

from alignbench import POLICY, REFERENCE, Sampling, Sequences, UserError
from tests import tiny

honest = torch.compile
Graphs = list[Any]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    """Those that are made; torch differentiates what it sees of a block and runs it as it is: seconds less than a compiler takes."""
    from torch._dynamo.backends.debugging import aot_eager

    made: Graphs = []

    def backend(graph: Any, inputs: Any, **rest: Any) -> Any:
        made.append(graph)
        return aot_eager(graph, inputs, **rest)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(honest, backend=backend))
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest keeps all that it says
    yield made
    torch._dynamo.reset()


def policy_of(
    passes: str, dtype: torch.dtype = torch.float32, *, exact: bool = False, layers: int = 3, **changes: Any
) -> HFPolicy:
    """All four roles, each with an adapter of its own. `exact`: weights of that type, computed with in float32."""
    base = tiny.base_model(layers=layers, dtype=dtype)
    policy = tiny.adapters(base.float() if exact else base, blocks=passes, max_response_tokens=12, **changes)
    policy.freeze_reference()
    policy.scalar("reward")
    tiny.move(policy, seed=1)
    policy.scalar("value", init_from="reward")
    tiny.move(policy, seed=2)
    for name in policy.scalars():
        with torch.no_grad():
            policy._scalars[name].head.read.weight.fill_(0.1)
    return policy


def rows_of(policy: HFPolicy, n: int = 3) -> Sequences:
    """Rows of many lengths; several answer one prompt."""
    rng = torch.Generator().manual_seed(5)
    return policy.generate(tiny.PROMPTS, Sampling(), n=n, rng=rng).samples.sequences


def measured(policy: HFPolicy, rows: Sequences) -> dict[str, Tensor]:
    """Whatever a step of PPO asks for, and the gradients."""
    scored = {role: policy.logprobs(rows, role=role).logprobs for role in (REFERENCE,)}
    with torch.no_grad():
        scored["scored"] = policy.logprobs(rows).logprobs
        scored["reward"] = policy._scalars["reward"].values(rows)
    for parameter in policy._roles._peft.parameters():
        parameter.grad = None
    found, values = policy.logprobs(rows).logprobs, policy._scalars["value"].values(rows)
    (found.sum() + values.square().sum()).backward()
    gradients = {n: p.grad.clone() for n, p in policy._roles._peft.named_parameters() if p.grad is not None}
    assert len({name.split("lora_")[-1].split(".")[1] for name in gradients}) == 2, "of the policy and of the value"
    return {**scored, "logprobs": found.detach(), "values": values.detach(), **gradients}


def apart(found: dict[str, Tensor], right: dict[str, Tensor]) -> dict[str, float]:
    assert found.keys() == right.keys()
    return {n: float((found[n] - r).float().norm() / r.float().norm().clamp(min=1e-12)) for n, r in right.items()}


def assert_near(found: dict[str, Tensor], right: dict[str, Tensor], within: float = 1e-5) -> None:
    far = apart(found, right)
    assert max(far.values()) <= within, far


def test_losses_and_gradients_are_those_of_eager(graphs: Graphs) -> None:
    right, found = (policy_of(passes, layers=2) for passes in ("eager", "compiled"))
    rows = rows_of(right)
    expected = measured(right, rows)
    assert not graphs
    assert_near(measured(found, rows), expected)
    assert found._roles._blocks.works
    assert graphs


def rounds_no_worse() -> None:
    """Than eager passes, beside those of the same weights in float32. Scores are those of training to the bit: the first ratio of PPO is 1."""
    exact = policy_of("eager", torch.bfloat16, layers=2, exact=True)
    eager, compiled = (policy_of(passes, torch.bfloat16, layers=2) for passes in ("eager", "compiled"))
    rows = rows_of(exact)
    right, mine = measured(exact, rows), measured(compiled, rows)
    assert torch.equal(mine["scored"], mine["logprobs"])
    by_eager, by_compiled = (sum(apart(found, right).values()) for found in (measured(eager, rows), mine))
    assert 0 < by_compiled <= 1.2 * by_eager
    assert compiled._roles._blocks.works


def test_sixteen_bits_round_no_worse(graphs: Graphs) -> None:
    rounds_no_worse()
    assert graphs


def test_one_code_serves_all_blocks_roles_and_shapes(graphs: Graphs) -> None:
    policy = policy_of("compiled")
    rows = rows_of(policy)
    measured(policy, rows)
    made = len(graphs)
    assert made <= 3, "prompts, then what answers them; one is seen twice"
    for order in ((3, 4, 5, 6), (0, 1, 2, 9, 10, 11), tuple(range(18))):
        measured(policy, rows.select(torch.tensor(order)))
    assert len(graphs) == made
    assert policy._roles._blocks.works


@pytest.mark.slow
def test_by_the_compiler_itself() -> None:
    torch._dynamo.reset()
    right, found = (policy_of(passes) for passes in ("eager", "compiled"))
    rows = rows_of(right)
    assert_near(measured(found, rows), measured(right, rows))
    assert found._roles._blocks.works
    rounds_no_worse()


# Where it is not, or cannot be


def test_sampling_and_lent_models_are_left_alone(graphs: Graphs) -> None:
    policy = policy_of("compiled")
    rows_of(policy)
    model = policy.as_transformers(POLICY)
    ids = torch.randint(4, 12, (2, 5), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids).logits.sum().backward()
    assert not graphs


def fails(*_: object, **__: object) -> Callable[..., Any]:
    def code(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    return code


def wrong(code: Callable[..., Any], **_: object) -> Callable[..., Any]:
    def otherwise(*given: Any, **rest: Any) -> Any:
        out, keys, values = code(*given, **rest)
        return 1.5 * out, keys, values

    return otherwise


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (fails, "RuntimeError: no kernel"),
        (wrong, r"what they give is 0\.\d+ apart, relative to its size"),
        (None, r"there is no C\+\+ compiler: install g\+\+"),
    ],
)
def test_what_cannot_be_compiled_is_computed_eagerly_and_said_once(
    made: Any, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if made is None:
        monkeypatch.setattr("shutil.which", lambda name: None)
    else:
        monkeypatch.setattr(torch, "compile", made)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: False)
    right, found = (policy_of(passes) for passes in ("eager", "compiled"))
    rows = rows_of(right)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_near(measured(found, rows), measured(right, rows))
    (said,) = caplog.messages
    assert re.fullmatch(
        "LlamaForCausalLM is computed operation by operation, as by model.blocks=eager: compiled blocks do not work "
        rf"\({why}\)\.",
        said,
    )


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UserError, match=f"Unknown model.blocks 'fast'.*{', '.join(sorted(BLOCKS))}"):
        PretrainedConfig(blocks="fast")


def test_blocks_that_are_computed_again_are_not_compiled() -> None:
    with pytest.raises(UserError, match=r"model.blocks=compiled does not go with model.gradient_checkpointing=true"):
        PretrainedConfig(blocks="compiled", gradient_checkpointing=True)
    assert "gradient_checkpointing" not in PretrainedConfig(blocks="compiled").savings()
