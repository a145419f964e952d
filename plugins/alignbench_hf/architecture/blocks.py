"""The blocks of a base by one compiled code, in passes that train and that score: what stands around the products of matrices (norms, casts,
rotation, softmax, an adapter's addition) becomes few kernels, where it is thousands of operators otherwise.

All blocks share the code, and so do all roles: adapters are handed over as tensors. Rows and lengths may be any. A pass that scores runs the
code of one that trains, so that a policy's log-probabilities before a step and in it are the same to the bit."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from alignbench import pretrained
from alignbench_hf.architecture.lora import handed_over, is_lean

NEAR = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""How far what a compiled block gives, and its gradients, may be from the block's own, relative to their size: rounding, with room to spare."""
MOST_CODES = 6  # of one kind of block: with a cache or without, more to come or not

log = logging.getLogger(__name__)


class _UnfitError(Exception):
    """Why a block cannot be compiled."""


class Held:
    """Keys and values [B, heads, T, width] of one layer, and what its block adds: stands in the cache's place, so that the code does not
    depend on the layer's number."""

    def __init__(self, keys: Tensor | None, values: Tensor | None) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], -2), torch.cat([self.values, values], -2)
        self.keys, self.values = keys, values
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        return 0 if self.keys is None else self.keys.shape[-2]


@dataclass(frozen=True)
class _Block:
    """A block, its adapted layers, and the number of its layer in a cache."""

    module: nn.Module
    adapted: tuple[LoraLayer, ...]
    number: int


class Blocks:
    """Which of a model's blocks are compiled, and whether they are in the present pass (`on`). What fails is said once, and not tried again.
    `way`: compiled or eager."""

    def __init__(self, model: Any, adapted: Iterable[LoraLayer], way: str) -> None:
        self.works, self.on, self._fit = way == "compiled", False, False
        self._name, self._dtype = type(model).__name__, model.dtype
        self._tried: set[tuple[object, ...]] = set()
        self._codes: dict[type[nn.Module], Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]] = {}
        if not self.works:
            return
        found = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        layers = set(adapted)
        # What the first block reads has no gradient: it would be a code of its own.
        for module in found[1:]:
            inside = [each for each in module.modules() if isinstance(each, LoraLayer)]
            number = {each.layer_idx for each in module.modules() if isinstance(getattr(each, "layer_idx", None), int)}
            if len(number) == 1 and set(inside) <= layers and all(map(is_lean, inside)):
                block = _Block(module, tuple(inside), number.pop())
                module.forward = functools.partial(self._forward, block, module.forward)
                self._fit = True
        if not self._fit:
            self._give_up("no block of it has plain weights, and keeps keys and values alone")

    def _give_up(self, why: str) -> None:
        self.works = False
        log.warning(
            "%s is computed operation by operation, as by model.blocks=eager: compiled blocks do not work (%s).",
            self._name,
            why,
        )

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """A pass that trains or scores, begun and ended here. What samples, and models that are lent, stay as they are."""
        before, self.on = self.on, self.works
        try:
            yield
        finally:
            self.on = before

    def _forward(self, block: _Block, eager: Callable[..., Any], hidden: Tensor, *args: Any, **given: Any) -> Any:
        cache = given.get("past_key_values")
        if not self.on or not self.works or args or hidden.shape[0] == 1 or hidden.shape[1] == 1:
            return eager(hidden, *args, **given)
        layer = cache.layers[block.number] if cache is not None else None
        if layer is not None and (type(layer) is not DynamicLayer or layer.get_seq_length() == 1):
            return eager(hidden, **given)
        given = {name: value for name, value in given.items() if name != "past_key_values"}
        try:
            return self._compiled(block, eager, hidden, cache, layer, given)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            known = isinstance(error, _UnfitError)
            self._give_up(str(error) if known else f"{type(error).__name__}: {pretrained.one_line(error)}")
            return eager(hidden, past_key_values=cache, **given)

    def _compiled(
        self,
        block: _Block,
        eager: Callable[..., Any],
        hidden: Tensor,
        cache: Any,
        layer: DynamicLayer | None,
        given: dict[str, Any],
    ) -> Tensor:
        past = layer is not None and layer.get_seq_length() > 0
        keys, values = (layer.keys, layer.values) if layer is not None and past else (None, None)
        keep = cache is not None and not getattr(cache, "is_ending", False)
        code = self._codes.get(type(block.module))
        if code is None:
            code = self._codes[type(block.module)] = _code(type(block.module).forward)
        kind = (
            type(block.module),
            cache is None,
            past,
            keep,
            *(name for name, value in given.items() if value is None),
        )
        run = functools.partial(code, block.module, cached=cache is not None, keep=keep, given=given)
        scores = not torch.is_grad_enabled()
        # Else numbers that happen to be the same, as of rows and of tokens, are taken to be one.
        with handed_over(block.adapted, learns=not scores), fx_config.patch(use_duck_shape=False):
            if kind not in self._tried:
                self._try(run, eager, hidden, keys, values, cache is not None, given)
                self._tried.add(kind)
            if scores:
                with torch.enable_grad():
                    made = run(*map(_leaf, (hidden, keys, values)))
                out, keys, values = (one if one is None else one.detach() for one in made)
            else:
                out, keys, values = run(hidden, keys, values)
        if layer is not None and keep:
            if not layer.is_initialized:
                layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        return out

    def _try(
        self,
        run: Callable[..., tuple[Tensor, Any, Any]],
        eager: Callable[..., Any],
        hidden: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        cached: bool,
        given: dict[str, Any],
    ) -> None:
        """Has the code made, there and back, and compares it with what the block says itself. Raises whatever goes wrong."""
        if shutil.which("g++") is None and shutil.which("clang++") is None and hidden.device.type == "cpu":
            raise _UnfitError("there is no C++ compiler: install g++")
        found, right = [], []
        for into, computed in (
            (found, lambda *given_: run(*given_)[0]),
            (right, lambda h, k, v: eager(h, past_key_values=Held(k, v) if cached else None, **given)),
        ):
            with torch.enable_grad():
                leaves = [_leaf(one) for one in (hidden, keys, values)]
                out = computed(*leaves)
                if not isinstance(out, Tensor):
                    raise _UnfitError(f"its blocks give a {type(out).__name__}")
                there = [leaf for leaf in leaves if leaf is not None]
                into.extend([out.detach(), *torch.autograd.grad(out.float().square().sum(), there)])
        for mine, whole in zip(found, right, strict=True):
            far = float((mine - whole).float().norm() / whole.float().norm().clamp(min=1e-30))
            if not far <= NEAR.get(self._dtype, NEAR[torch.bfloat16]):
                raise _UnfitError(f"what they give is {far:.2g} apart, relative to its size")


def _leaf(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().requires_grad_()


def _code(forward: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]:
    def of_block(
        block: nn.Module,
        hidden: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        *,
        cached: bool,
        keep: bool,
        given: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        held = Held(keys, values) if cached else None
        out = forward(block, hidden, past_key_values=held, **given)
        return (out, held.keys, held.values) if held is not None and keep else (out, None, None)

    return torch.compile(of_block, fullgraph=True, dynamic=True, recompile_limit=MOST_CODES)
