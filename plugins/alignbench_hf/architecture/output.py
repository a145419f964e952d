"""From last hidden states to logits, as the model itself does it: capped, scaled or neither, and never tokens that are suppressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignbench import POLICY, REFERENCE, Sequences, UserError, functional

if TYPE_CHECKING:
    from alignbench_hf.scalar import HFScalarRole

NEVER = -1e9  # not minus infinity: times a probability of 0 that would be NaN


@dataclass(frozen=True)
class Measured:
    """What one pass tells of some rows: scores of their tokens (see TokenScores), the values [B, R + 1] of a role that reads the same
    states, and KL(reference || policy) [B, R] before each token."""

    logprobs: Tensor
    entropy: Tensor | None = None
    greedy: Tensor | None = None
    values: Tensor | None = None
    reference_kl: Tensor | None = None


class OutputLayer(nn.Module):
    """The model's own forward function around a trunk that gives the states it is told: whatever the architecture does to its
    logits (Gemma 2's cap, arXiv 2408.00118; Granite's and Cohere's scales) is done, without a list of who does what."""

    def __init__(self, model: Any, suppressed: Tensor) -> None:
        super().__init__()
        self._stand_in = _StandIn()
        around = object.__new__(type(model))  # `copy` would make a model that is divided among processes anew
        parts = {**model._modules, model.base_model_prefix: self._stand_in}  # of them only the trunk is another
        around.__dict__.update(model.__dict__, _modules=parts)
        self._around, self.suppressed = around, suppressed
        self.weight = model.get_output_embeddings().weight

    def forward(self, states: Tensor) -> Tensor:
        """States [..., H] -> logits [..., V]."""
        # Autocast computes some norms in float32 on a GPU, and the output layer is used outside of it.
        self._stand_in.states = states.to(self.weight.dtype).reshape(1, -1, states.shape[-1])
        try:
            logits: Tensor = self._around.forward(input_ids=None, use_cache=False).logits
        finally:
            self._stand_in.states = None
        logits = logits.view(*states.shape[:-1], logits.shape[-1])
        return logits.index_fill(-1, self.suppressed, NEVER) if len(self.suppressed) else logits


def measured(
    states: Callable[[str, Sequences], tuple[Tensor, nn.Module]],
    fields: Sequence[str],
    sequences: Sequences,
    *,
    role: str,
    temperature: float,
    value: HFScalarRole | None = None,
) -> Measured:
    """What is asked about some rows, by one pass."""
    hidden, output = states(role, sequences)
    found = functional.token_logprobs(
        hidden[:, :-1],
        output,
        sequences.response_ids,
        temperature=temperature,
        entropy="entropy" in fields,
        greedy="greedy" in fields,
    )
    outside = ~sequences.response_mask.bool()
    return Measured(
        found.logprobs.masked_fill(outside, 0.0),
        None if found.entropy is None else found.entropy.masked_fill(outside, 0.0),
        None if found.greedy is None else found.greedy & ~outside,
        None if value is None else value.head(hidden, output, sequences),
    )


def measured_kl(
    use: Callable[[str], object],
    states: Callable[[str, Sequences], tuple[Tensor, nn.Module]],
    sequences: Sequences,
    *,
    temperature: float,
) -> Measured:
    """By one pass of each role; the policy's comes last, so that its gradients find the base as it left it. `use` makes the base the
    model of a role: the reference's logits are made after the policy's states, by an output layer that may have adapters too."""
    with torch.no_grad():
        reference, its_output = states(REFERENCE, sequences)
    hidden, output = states(POLICY, sequences)

    def its_logits(known: Tensor) -> Tensor:
        use(REFERENCE)
        try:
            logits: Tensor = its_output(known)
        finally:
            use(POLICY)
        return logits

    logprobs, kl = functional.token_logprobs_and_kl(
        hidden[:, :-1], output, reference[:, :-1], its_logits, sequences.response_ids, temperature=temperature
    )
    outside = ~sequences.response_mask.bool()
    return Measured(logprobs.masked_fill(outside, 0.0), reference_kl=kl.masked_fill(outside, 0.0))


def without(model: Any, suppressed: Tensor) -> Any:
    """The model, which others call: its own output layer is given a bias against the suppressed tokens."""
    head = model.get_output_embeddings()
    if not len(suppressed):
        return model
    if type(head) is not nn.Linear or head.bias is not None or getattr(model.config, "final_logit_softcapping", None):
        raise UserError(
            "model.suppress_tokens: another library cannot train this architecture without these tokens: leave it out."
        )
    bias = torch.zeros(head.out_features, dtype=head.weight.dtype, device=head.weight.device)
    head.bias = nn.Parameter(bias.index_fill(0, suppressed, NEVER), requires_grad=False)
    return model


class _StandIn(nn.Module):
    """A trunk, and any part of one, whose last hidden states are known."""

    states: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """Some models ask a part of their trunk, such as `model.decoder`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            return self

    def forward(self, *args: Any, **rest: Any) -> _Given:
        assert self.states is not None, "used by OutputLayer alone"
        return _Given(self.states)


class _Given:
    """A trunk's output that holds the last hidden states alone."""

    def __init__(self, states: Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return None
