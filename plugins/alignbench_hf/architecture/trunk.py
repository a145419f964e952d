"""The part of a model below its output layer: its config, its cache, and one pass."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin


def text_config(model: Any) -> Any:
    """Where sizes stand: models that also read images keep those of the text in a config of its own."""
    return model.config.get_text_config(decoder=True)


def window(model: Any) -> int | None:
    """How many positions a model has; None where it has no such limit."""
    found: int | None = getattr(text_config(model), "max_position_embeddings", None)
    return found


def new_cache(trunk: nn.Module) -> DynamicCache:
    """An empty cache of the layers that this model has: attention, sliding or not, convolutions, recurrent states."""
    return DynamicCache(config=trunk.config)


def select_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Leaves these rows, in this order, each as often as it is named. (`batch_select_indices` knows attention alone.)"""
    cache.reorder_cache(rows)


def remembers_states(trunk: nn.Module) -> bool:
    """Whether a layer keeps a running state: padding within a row would enter it, and it is overwritten where autograd would
    need it again."""
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in new_cache(trunk).layers)


def read(trunk: nn.Module, ids: Tensor, attention: Tensor, position: Tensor, cache: DynamicCache | None) -> Tensor:
    """Last hidden states [B, T, H] of ids [B, T] after what the cache holds; `attention` covers both. Models that place
    tokens by their attention alone are not told positions."""
    given = {"input_ids": ids, "attention_mask": attention, "past_key_values": cache, "use_cache": cache is not None}
    if "position_ids" in _accepted(type(trunk)):
        given["position_ids"] = position
    hidden: Tensor = trunk(**given).last_hidden_state
    return hidden


@functools.cache
def _accepted(kind: type[nn.Module]) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)
