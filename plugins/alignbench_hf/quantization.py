"""Bases in four or eight bits by bitsandbytes: how they are loaded, and how an adapter is merged beside them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from alignbench import UserError, pretrained

Model = Any  # a transformers or peft model
_CPU_FLAG = "support_avx512bf16_for_cpu"
_BLOCK, _MOST_LOST = 64, 0.12  # weights that share a scale; of normal weights NF4 loses 0.092 of their norm


def quantization_config(name: str, dtype: torch.dtype, device: torch.device) -> BitsAndBytesConfig | None:
    """How transformers is to load a base, computing in `dtype`. Raises UserError where bitsandbytes cannot do it."""
    if name == "none":
        return None
    try:
        _probe(name, dtype, device)
    except Exception as error:  # no library for this platform, no kernel for this device: each fails in its own way
        raise UserError(
            f"model.quantization={name}: bitsandbytes cannot run on device={device.type} here ({pretrained.one_line(error)}). "
            "Use model.quantization=none, or another device."
        ) from error
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _probe(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """One small product by the layer in question."""
    import bitsandbytes as bnb

    layer = (
        bnb.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False)
        if name == "int8"
        else bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=dtype, quant_type="nf4")
    )
    with torch.no_grad():
        found = layer.to(device).train()(torch.ones(1, 64, dtype=dtype, device=device))
    if not bool(torch.isfinite(found).all()):
        raise RuntimeError("a product of two small matrices is not finite")


def keep_trainable(model: nn.Module, device: torch.device) -> None:
    """Keeps four-bit layers in the form that has a gradient.

    On processors with AVX512-BF16, bitsandbytes repacks a layer for good in its first pass in evaluation mode, such as a
    rollout, and computes without autograd from then on: training then goes on with wrong gradients, and without an error."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            if device.type == "cpu" and not hasattr(module, _CPU_FLAG):
                raise UserError(
                    f"bitsandbytes {bnb.__version__} has no Linear4bit.{_CPU_FLAG}, without which four-bit training on a CPU "
                    "may go wrong unnoticed: install the version in constraints.txt, or use model.quantization=none."
                )
            setattr(module, _CPU_FLAG, False)


def check_unpacking(model: nn.Module, device: torch.device) -> None:
    """Raises UserError where bitsandbytes does not get back on this device what it packed into four bits.

    On processors with AVX512 its version 0.50.2 takes the scales of other blocks where rows end inside of one (their width a
    multiple of 16 and not of 64): wrong weights, and no error."""
    import bitsandbytes as bnb

    widths = {module.in_features for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)}
    for width in sorted(widths):
        weight = torch.randn(_BLOCK, width, generator=torch.Generator().manual_seed(0)).to(device)
        packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        lost = float((bnb.functional.dequantize_4bit(packed, state) - weight).norm() / weight.norm())
        if not lost < _MOST_LOST:
            raise UserError(
                f"bitsandbytes {bnb.__version__} unpacks four-bit rows of {width} numbers wrongly on device={device.type} here "
                f"({lost:.0%} of the weights are lost, where rounding costs 9%): use model.quantization=int8 or none."
            )


def evaluation_mode(model: Model) -> Model:
    """Dropout off. On a CPU, eight-bit layers also round what they read unless they are told that they train; told so, they
    multiply by the dequantised weight, which is exact and faster. On a GPU they round it always (arXiv 2208.07339)."""
    import bitsandbytes as bnb

    model.eval()
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear8bitLt) and module.weight.device.type == "cpu":
            module.training = True
    return model


def rounds_inputs(model: Model) -> bool:
    """Whether there are eight-bit layers that round what they read, too."""
    import bitsandbytes as bnb

    return any(isinstance(module, bnb.nn.Linear8bitLt) and not module.training for module in model.modules())


def merged(layer: LoraLayer, adapter: str, dtype: torch.dtype) -> nn.Module:
    """A layer without an adapter that computes as `layer` does with it; `layer` keeps its weights. A quantised weight
    becomes one of `dtype`."""
    base: Any = layer.get_base_layer()
    if (weight := dequantized(base)) is not None:
        plain = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
        whole = weight + layer.get_delta_weight(adapter)
        plain.weight, plain.bias = nn.Parameter(whole.to(dtype), requires_grad=False), base.bias
        return plain
    plain = copy.copy(base)  # of any kind: only its adapted weights are others
    plain._parameters = dict(base._parameters)
    while isinstance(layer, LoraLayer):
        name = adapted_name(layer)
        before = plain._parameters[name]
        plain._parameters[name] = nn.Parameter((before + layer.get_delta_weight(adapter)).to(before.dtype), False)
        layer = layer.base_layer  # fused experts have a wrapper for each of their tensors
    return plain


def adapted_name(layer: LoraLayer) -> str:
    """Of the tensor in its base layer that a layer adapts."""
    return str(layer.parameter_name) if isinstance(layer, ParamWrapper) else "weight"


def dequantized(layer: nn.Module) -> Tensor | None:
    """The float32 weight of a quantised layer; None of a plain one."""
    import bitsandbytes as bnb

    if isinstance(layer, bnb.nn.Linear4bit):
        return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    if isinstance(layer, bnb.nn.Linear8bitLt):
        scale = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
        codes = layer.weight.data if layer.state.CB is None else layer.state.CB
        return codes.float() * scale.float()[:, None] / 127.0
    return None
