"""LoRA's part of an adapted layer, in as few passes over memory as it takes."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


def lean(layer: LoraLayer) -> None:
    """Has a layer add its adapter in place and in the base's type; peft may no longer merge or disable it.

    peft's own forward pass copies what the layer reads to the adapter's float32 and, beside a bfloat16 base, back again,
    for each layer anew, and keeps the copies for the backward pass: on a CPU that took a good part of the pass."""
    inner = layer.get_base_layer()
    plain = not (layer.lora_variant or (layer.lora_bias and any(layer.lora_bias.values())) or layer.disable_adapters)
    if isinstance(inner, nn.Linear) and plain:  # bitsandbytes' layers are linear layers too
        layer.handed_over = None
        layer.forward = types.MethodType(
            _forward, layer
        )  # a method: a compiler then sees that all layers have the same


def is_lean(layer: LoraLayer) -> bool:
    """Whether a layer does so on plain weights, so that a compiler can see into all of it."""
    mine = layer.__dict__.get("forward")
    return isinstance(mine, types.MethodType) and mine.__func__ is _forward and type(layer.base_layer) is nn.Linear


@contextlib.contextmanager
def handed_over(layers: Iterable[Any], *, learns: bool) -> Iterator[None]:
    """Gives code that is compiled the tensors of these layers' active adapters, whatever they are called: those that learn, or others of
    the same kind over the same memory."""
    for layer in layers:
        (adapter,) = layer.active_adapters
        down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        if not learns:
            down, up = nn.Parameter(down.detach()), nn.Parameter(up.detach())
        layer.handed_over = (down, up, layer.scaling[adapter])  # in a tuple no module takes them for its own
    try:
        yield
    finally:
        for layer in layers:
            layer.handed_over = None


def _forward(layer: Any, x: Tensor) -> Tensor:
    if layer.handed_over is not None and torch.compiler.is_compiling():
        return _traced(layer, x)
    (adapter,) = layer.active_adapters
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    rows = x.reshape(-1, x.shape[-1])  # a layer with a bias gives a view of the product of more dimensions
    added: Tensor = _AddAdapter.apply(layer.base_layer(rows), rows, down, up, layer.scaling[adapter])  # type: ignore[no-untyped-call]
    return added.view(*x.shape[:-1], added.shape[-1])


def _traced(layer: Any, x: Tensor) -> Tensor:
    """The same as plain operators, whose gradient the compiler makes."""
    down, up, scale = layer.handed_over
    rows = x.reshape(-1, x.shape[-1])
    base = layer.base_layer(rows)
    low = rows.to(base.dtype) @ down.to(base.dtype).T
    added: Tensor = base + (low * scale) @ up.to(base.dtype).T
    return added.view(*x.shape[:-1], added.shape[-1])


class _AddAdapter(torch.autograd.Function):
    """base + scale * (x A^T) B^T (Hu et al., arXiv 2106.09685), computed in base's type; x [N, in], A [r, in] and B [out, r] may
    be of another. Written into `base` [N, out], unless that is a view: bitsandbytes' products give views that autograd does not
    let anybody change, and through those that it does, the gradient is copied once more."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        ctx.scale, ctx.types = scale, (x.dtype, down.dtype, up.dtype)
        x, down, up = (part.to(base.dtype) for part in (x, down, up))
        low = x @ down.T
        ctx.save_for_backward(x, low, down, up)
        if base._is_view():
            return torch.addmm(base, low, up.T, alpha=scale)
        ctx.mark_dirty(base)
        return base.addmm_(low, up.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        (above,) = upstream
        x, low, down, up = ctx.saved_tensors
        of_x, of_down, of_up = ctx.types
        by_low = (above @ up).mul_(ctx.scale)
        by_x = (by_low @ down).to(of_x) if ctx.needs_input_grad[1] else None
        return above, by_x, (by_low.T @ x).to(of_down), (above.T @ low).mul_(ctx.scale).to(of_up), None
