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
    added: Tensor = _AddAdapter.apply(inner(x), x, down, up, layer.scaling[adapter])  # type: ignore[no-untyped-call]
    return added


class _AddAdapter(torch.autograd.Function):
    """base + scale * (x A^T) B^T (Hu et al., arXiv 2106.09685), written into `base` and computed in its type; x [..., in],
    A [r, in] and B [out, r] may be of another."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        ctx.mark_dirty(base)
        ctx.scale, ctx.types, ctx.shape = scale, (x.dtype, down.dtype, up.dtype), x.shape
        rows, down, up = (part.to(base.dtype) for part in (x.reshape(-1, x.shape[-1]), down, up))
        low = rows @ down.T
        base.view(-1, base.shape[-1]).addmm_(low, up.T, alpha=scale)
        ctx.save_for_backward(rows, low, down, up)
        return base

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        rows, low, down, up = ctx.saved_tensors
        of_x, of_down, of_up = ctx.types
        above = upstream[0].reshape(-1, upstream[0].shape[-1])
        by_low = (above @ up).mul_(ctx.scale)
        by_x = (by_low @ down).view(ctx.shape).to(of_x) if ctx.needs_input_grad[1] else None
        return upstream[0], by_x, (by_low.T @ rows).to(of_down), (above.T @ low).mul_(ctx.scale).to(of_up), None
