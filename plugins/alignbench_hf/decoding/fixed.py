"""A cache of a fixed number of columns, written in place: what a step that is compiled or captured once can go on with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer


class UnfitError(Exception):
    """Why a model cannot be decoded so."""


class FixedLayer(CacheLayerMixin):
    """Keys and values [B, heads, columns, width], of which those up to `column` [1] are there. All columns are kept where attention
    looks back a window too: the mask alone says what is seen."""

    is_compileable = True

    def __init__(self, grown: DynamicLayer, columns: int, column: Tensor) -> None:
        super().__init__()
        self.is_sliding, self.columns, self.column, self.is_initialized = grown.is_sliding, columns, column, True
        self.dtype, self.device = grown.keys.dtype, grown.keys.device
        until, held = grown.get_seq_length(), grown.keys.shape[-2]
        self.keys, self.values = (
            torch.cat([_zeros(one, until - held), one, _zeros(one, columns - until)], -2)
            for one in (grown.keys, grown.values)
        )

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """There is nothing left to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns, 0

    def get_seq_length(self) -> Any:
        """A tensor [1]: as a number it would be written into what is compiled."""
        return self.column

    def get_max_length(self) -> int:
        return self.columns

    def select(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]


def _zeros(like: Tensor, columns: int) -> Tensor:
    return like.new_zeros(*like.shape[:2], columns, like.shape[-1])


def fixed_cache(grown: DynamicCache, columns: int, column: Tensor) -> Cache:
    """What `grown` holds, with room for `columns`; `column` [1], which is common to all layers, is where the next token's go. Raises
    UnfitError for layers that keep something else than keys and values."""
    for layer in grown.layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UnfitError("some of its layers keep a running state")
    return Cache(layers=[FixedLayer(layer, columns, column) for layer in grown.layers])
