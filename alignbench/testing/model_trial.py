"""What the checks of models work with: a policy over a few short texts, moved as training moves it, and what it says of them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench.contracts import Policy
from alignbench.errors import UserError
from alignbench.plugins import Component
from alignbench.records import Exported, Message, Prompt, Sampling, Sequences
from alignbench.seeds import Seeds
from alignbench.testing.checks import CannotBeBuilt, NotApplicable, PropertyBroken

LETTERS = "abcdefgh"
TEXTS = ("a", "b c d", "e f", "h g f e d", "c c", "a b")
NEW_TOKENS = 5
EXACT = 1e-3
"""Mean difference in nats a token between two ways to compute a log-probability in float32. A policy whose numbers are rounded to
16 bits says in its export how far apart they may be."""
CLOSE = f"{EXACT:g} nats a token on average, or as far as the model's own export allows"


def prompts() -> tuple[Prompt, ...]:
    """Ordinary texts of several lengths."""
    return tuple(Prompt(f"p{i}", (Message("user", text),)) for i, text in enumerate(TEXTS))


@functools.cache
def letters() -> Any:
    """For models that take the data source's tokenizer: one token a letter, and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(("<pad>", "<eos>", "<unk>", "<bot>", *LETTERS))}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=["<bot>"],
        chat_template="{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }} <bot>{% else %} {{ m['content'] }} "
        "<eos>{% endif %}{% endfor %}",
    )


def build(component: Component, seed: int, *, moved: bool = True) -> Policy:
    """The policy, with its reference frozen. `moved`: its weights then differ from the reference's, as after training. Raises
    CannotBeBuilt."""
    try:
        policy: Policy = component.load()(
            component.config(), tokenizer=letters(), device=torch.device("cpu"), seeds=Seeds(seed).child("model")
        )
    except UserError as error:
        raise CannotBeBuilt(str(error)) from error
    policy.freeze_reference()
    if moved:
        move(policy, seed)
    return policy


def move(policy: Policy, seed: int, share: float = 0.1) -> None:
    """Moves the policy's weights, as `shake` does."""
    shake(policy.trainable(), seed, share)


def shake(parameters: Sequence[torch.nn.Parameter], seed: int, share: float = 0.1) -> None:
    """Noise of this share of each weight's own size; of its fan-in's where it is zero, as a fresh adapter's is."""
    rng = Seeds(seed).torch("noise")
    with torch.no_grad():
        for parameter in parameters:
            fan_in = parameter.shape[-1] if parameter.dim() else 1
            scale = share * (float(parameter.float().std(correction=0)) or fan_in**-0.5)
            parameter.add_(torch.randn(parameter.shape, generator=rng).to(parameter), alpha=scale)


def sampled(policy: Policy, seed: int, n: int = 2) -> Sequences:
    rng = Seeds(seed).torch("sampling")
    return policy.generate(prompts(), few(policy), n=n, rng=rng).samples.sequences


def few(policy: Policy, temperature: float = 1.0, tokens: int = NEW_TOKENS) -> Sampling:
    return Sampling(temperature=temperature, max_new_tokens=min(tokens, policy.max_response_tokens))


def measured(policy: Policy, sequences: Sequences, **options: Any) -> Tensor:
    with torch.no_grad():
        return policy.logprobs(sequences, **options).logprobs


def require_close(found: Tensor, expected: Tensor, mask: Tensor, bound: float, what: str) -> float:
    """Their distance as a share of the bound."""
    gap = (found - expected).abs()[mask.bool()]
    if not bool(torch.isfinite(gap).all()) or float(gap.mean()) > bound:
        raise PropertyBroken(f"{what}: {float(gap.mean()):.3g} nats a token on average, {bound:g} allowed.")
    return float(gap.mean()) / bound


def margin(bound: float, *shares: float) -> str:
    return f"{max(shares) * bound:.2g} nats a token, of at most {bound:.2g}"


@contextmanager
def exported(policy: Policy) -> Iterator[tuple[Path, Exported]]:
    """The policy as an ordinary model in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = policy.export(Path(folder), merged=True, prompts=prompts())
        except UserError as error:
            raise NotApplicable(str(error)) from error
        yield Path(folder), done


@functools.cache
def tolerance(component: Component, seed: int) -> float:
    """By the export's own word, where there is one: it knows in what its numbers are rounded. Asked once: it writes a model."""
    try:
        with exported(build(component, seed)) as (_, done):
            return done.tolerance
    except NotApplicable:
        return EXACT


def alone(sequences: Sequences, row: int) -> tuple[Tensor, Tensor]:
    """A row's prompt and response without padding."""
    return (
        sequences.prompt_ids[row][sequences.prompt_mask[row].bool()],
        sequences.response_ids[row][sequences.response_mask[row].bool()],
    )


def padded(sequences: Sequences, *, left: int, right: int, fill: int) -> Sequences:
    pad = torch.nn.functional.pad
    ids, mask = (left, 0), (0, right)
    return Sequences(
        pad(sequences.prompt_ids.masked_fill(~sequences.prompt_mask.bool(), fill), ids, value=fill),
        pad(sequences.prompt_mask, ids),
        pad(sequences.response_ids.masked_fill(~sequences.response_mask.bool(), fill), mask, value=fill),
        pad(sequences.response_mask, mask),
    )


def trimmed(one: Sequences) -> Sequences:
    asked, answered = int(one.prompt_mask.sum()), int(one.response_mask.sum())
    return Sequences(
        one.prompt_ids[:, -asked:],
        one.prompt_mask[:, -asked:],
        one.response_ids[:, :answered],
        one.response_mask[:, :answered],
    )


def backward(policy: Policy, sequences: Sequences) -> tuple[Tensor, list[Tensor]]:
    for parameter in policy.trainable():
        parameter.grad = None
    found = policy.logprobs(sequences).logprobs
    found.sum().backward()
    none = [p.new_zeros(p.shape) if p.grad is None else p.grad.clone() for p in policy.trainable()]
    for parameter in policy.trainable():
        parameter.grad = None
    return found.detach(), none


def step_along(policy: Policy, gradients: Sequence[Tensor], size: float) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(policy.trainable(), gradients, strict=True):
            parameter.add_(gradient.to(parameter), alpha=size)
