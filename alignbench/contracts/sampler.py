"""The contract of what samples for a policy that is a causal language model. See `contracts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from alignbench.records.decoding import Decoded, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Sampler(ABC):
    """From a causal language model and explicit randomness to responses. Built with: policy, which is the one that it samples for and
    whose `save` writes what a program of its own has to load; None where `alignbench check` tries it on a bare model."""

    reads_model: ClassVar[bool] = True
    """False: it has a program of its own sample, and is given no model."""

    @abstractmethod
    def sample(self, model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
        """Samples until an EOS or `max_new_tokens`, without gradients. `model` is transformers' own, with the role's weights; `output`
        maps the last hidden states [.., H] of `model.base_model` to logits [.., V], those of suppressed tokens at -infinity.

        Log-probabilities are those of logits / temperature, before top-k and top-p; `functional.draw` draws one token so."""
