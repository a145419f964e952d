"""LoRA's part of an adapted layer, in as few passes over memory as it takes."""

from __future__ import annotations

import functools
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
        layer.forward = functools.partial(_forward, layer, inner)


def _forward(layer: Any, inner: nn.Module, x: Tensor) -> Tensor:
    (adapter,) = layer.active_adapters
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    rows = x.reshape(-1, x.shape[-1])  # a layer with a bias gives a view of the product of more dimensions
    added: Tensor = _AddAdapter.apply(inner(rows), rows, down, up, layer.scaling[adapter])  # type: ignore[no-untyped-call]
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
