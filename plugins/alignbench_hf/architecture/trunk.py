"""The part of a model below its output layer: its config, its cache, and one pass."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin

from alignbench import UserError, pretrained

NO_LIMIT = sys.maxsize
LEAST_TOKENS = 8  # fewer are sampled before a step that is captured over a cache of fixed size has paid for itself


def text_config(model: Any) -> Any:
    """Where sizes stand: models that also read images keep those of the text in a config of its own."""
    return model.config.get_text_config(decoder=True)


def require_decoder(config: Any, path: str) -> None:
    """Raises UserError for a model that does not continue a text: what encoder and decoder read would have to be told apart."""
    if config.is_encoder_decoder:
        raise UserError(
            f"{config.model_type} is an encoder-decoder model (model.path={path!r}); only decoders (causal language models) can be "
            "trained."
        )


@contextlib.contextmanager
def first_pass(model: Any) -> Iterator[None]:
    """Refuses a model that cannot compute anything here: each architecture has its own way not to fit."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{type(model).__name__} cannot be trained here: a pass over a few tokens fails "
            f"({pretrained.one_line(error)})."
        ) from error


def window(model: Any) -> int | None:
    """How many positions a model has; None where it has no such limit."""
    found: int | None = getattr(text_config(model), "max_position_embeddings", None)
    return found


class _UnaskedCache(DynamicCache):
    """Before each token transformers asks the device whether the mask masks anything, and the host waits for the answer; unless the
    cache is one that may be compiled."""

    is_compileable = True


def new_cache(trunk: Any) -> DynamicCache:
    """An empty cache of the layers that this model has: attention, sliding or not, convolutions, recurrent states."""
    kind = DynamicCache if trunk.device.type == "cpu" else _UnaskedCache
    return kind(config=trunk.config)


def ends(cache: DynamicCache) -> None:
    """Says that the next pass is the last to read this cache: what it would add, nobody asks for."""
    cache.is_ending = True  # type: ignore[attr-defined]


def select_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Leaves these rows, in this order, each as often as it is named. (`batch_select_indices` knows attention alone.)"""
    cache.reorder_cache(rows)


@dataclass(frozen=True)
class Sharing:
    """Whether rows can share the computation of a prompt, and rows of how many tokens also that of a common start, behind
    which their padding then stands."""

    prompts: bool = True
    start_within: int = NO_LIMIT

    @classmethod
    def of(cls, trunk: nn.Module) -> Sharing:
        """What the layers allow. A running state (convolutions, linear attention) would read the padding within a row, and is
        overwritten where autograd needs it again; a sliding window is counted in columns, padding included."""
        layers = new_cache(trunk).layers
        windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
        states = any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)
        return cls(prompts=not states, start_within=min([*windows, NO_LIMIT]))


def read(trunk: nn.Module, ids: Tensor, attention: Tensor, position: Tensor, cache: DynamicCache | None) -> Tensor:
    """Last hidden states [B, T, H] of ids [B, T] after what the cache holds; `attention` covers both. Models that place
    tokens by their attention alone are not told positions."""
    given = {"input_ids": ids, "attention_mask": attention, "past_key_values": cache, "use_cache": cache is not None}
    if _takes_positions(type(trunk)):
        given["position_ids"] = position
    hidden: Tensor = trunk(**given).last_hidden_state
    return hidden


_TAKES_POSITIONS: dict[type[nn.Module], bool] = {}  # no functools.cache, into which a compiler does not see


def _takes_positions(kind: type[nn.Module]) -> bool:
    if kind not in _TAKES_POSITIONS:
        _TAKES_POSITIONS[kind] = "position_ids" in inspect.signature(kind.forward).parameters
    return _TAKES_POSITIONS[kind]
