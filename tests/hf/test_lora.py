"""An adapter's part of a layer, made in few passes, is what peft's own forward pass makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alignbench_hf.architecture.lora import lean
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tests import tiny

TYPES = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


class Stack(nn.Module):
    """Two layers that read the same input, then one that reads both: as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(6, 8, bias=False), nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.nn.functional.silu(self.left(x)) * self.right(x))
        return out


def adapted(dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(
            Stack().to(dtype), LoraConfig(r=3, lora_alpha=6.0, target_modules=["left", "right", "last"])
        )
        model.add_adapter("other", LoraConfig(r=3, lora_alpha=6.0, target_modules=["left", "right", "last"]))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.5)
    return model


def measured(model: nn.Module, x: Tensor, upstream: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype is torch.bfloat16):
        found = model(x)
        (found.float() * upstream).sum().backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [found.detach().float(), x.grad.float(), *(grad.float() for grad in grads)]


@pytest.mark.parametrize("adapter", ["default", "other"])
@pytest.mark.parametrize("dtype", TYPES)
def test_values_and_gradients_are_those_of_peft(dtype: torch.dtype, adapter: str) -> None:
    theirs, mine = adapted(dtype), adapted(dtype)
    for model in (theirs, mine):
        model.set_adapter(adapter)
    layers = [module for module in mine.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        lean(layer)
        assert "forward" in vars(layer)
    generator = torch.Generator().manual_seed(1)
    x, upstream = torch.randn(4, 7, 6, generator=generator).to(dtype), torch.randn(4, 7, 5, generator=generator)
    expected, found = measured(theirs, x, upstream), measured(mine, x, upstream)
    assert len(found) == len(expected) == 2 + 2 * len(layers)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=TYPES[dtype], atol=TYPES[dtype] * float(other.abs().max()))


@pytest.mark.parametrize("bias", [True, False])
def test_nothing_is_written_into_a_view(bias: bool) -> None:
    """Of a layer's product, which its autograd function may not let anybody change: the adapter is added beside it. A product of
    its own is added to in place."""
    inner = nn.Linear(6, 8, bias=bias)
    model = get_peft_model(nn.Sequential(inner), LoraConfig(r=3, target_modules=["0"]))
    (layer,) = (module for module in model.modules() if isinstance(module, LoraLayer))
    nn.init.normal_(layer.lora_B["default"].weight)
    given: list[Tensor] = []
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = model(x)
    for view in (False, True):
        layer.__dict__.pop("forward", None)
        inner.forward = lambda rows, view=view: (given.append(View.apply(rows, inner, view)), given[-1])[1]
        lean(layer)
        found = model(x)
        found.sum().backward()
        torch.testing.assert_close(found, expected)
        assert (given[-1].data_ptr() == found.data_ptr()) is not view


class View(torch.autograd.Function):
    """As bitsandbytes' product of three dimensions with a bias."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, inner: nn.Linear, view: bool) -> Tensor:
        ctx.weight = inner.weight
        out = nn.functional.linear(rows, inner.weight, inner.bias)
        return out.view(1, *out.shape)[0] if view else out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream[0] @ ctx.weight, None, None


def test_adapters_are_trained_in_float32() -> None:
    """Their gradients are not rounded to the base's type, in which Adam's small steps would be lost."""
    model = adapted(torch.bfloat16)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            lean(layer)
    measured(model, torch.randn(2, 6).bfloat16(), torch.ones(2, 5))
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("changed", [{"use_dora": True}, {"lora_bias": True}])
def test_what_is_more_than_lora_is_left_to_peft(changed: dict[str, bool]) -> None:
    model = get_peft_model(Stack(), LoraConfig(r=3, target_modules=["right"], **changed))
    (layer,) = (module for module in model.modules() if isinstance(module, LoraLayer))
    lean(layer)
    assert "forward" not in vars(layer)


def test_every_adapted_layer_of_a_policy_is_lean() -> None:
    policy = tiny.adapters()
    policy.freeze_reference()
    assert all("forward" in vars(layer) for layer in policy._roles._layers.values())
