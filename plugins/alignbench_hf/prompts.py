"""Responses to one prompt share its computation: rows with the same prompt are found, and grouped where that saves work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from alignbench import Sequences, functional

WORTHWHILE = 0.9
"""Prompts are shared where that leaves at most this share of the tokens: two passes cost more than one of the same length."""


@dataclass(frozen=True)
class Distinct:
    """The different prompts of a batch: `first` [U], the row where each is met first; `of_row` [B], which of them a row has."""

    first: Tensor
    of_row: Tensor

    def __len__(self) -> int:
        return len(self.first)


def distinct_prompts(prompt_ids: Tensor, prompt_mask: Tensor) -> Distinct:
    """In the order in which they are met. [B, P] each."""
    seen: dict[tuple[int, ...], int] = {}
    first, of_row = [], []
    for row, key in enumerate(map(tuple, prompt_ids.masked_fill(~prompt_mask.bool(), -1).tolist())):
        if key not in seen:
            seen[key] = len(seen)
            first.append(row)
        of_row.append(seen[key])
    device = prompt_ids.device
    return Distinct(torch.tensor(first, device=device), torch.tensor(of_row, device=device))


def positions(attention: Tensor) -> Tensor:
    """Counted from a row's first token, wherever its padding is."""
    return (attention.cumsum(1) - 1).clamp(min=0)


def prefill(trunk: Any, prompt_ids: Tensor, prompt_mask: Tensor, prompts: Distinct) -> tuple[Tensor, DynamicCache]:
    """Reads each different prompt once: its last state [U, H], and a cache of all B rows."""
    attention = prompt_mask[prompts.first].long()
    cache = DynamicCache()
    hidden = trunk(
        input_ids=prompt_ids[prompts.first],
        attention_mask=attention,
        position_ids=positions(attention),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, -1]
    if len(prompts) < len(prompts.of_row):
        cache.batch_select_indices(prompts.of_row)
    return hidden, cache


def states(trunk: Any, sequences: Sequences, *, share: bool) -> Tensor:
    """Hidden states before each response token and after the last, [B, R + 1, H]. With `share`, a prompt that several rows
    have is read once, where that is worth it; gradients flow through what is shared."""
    prompts = distinct_prompts(sequences.prompt_ids, sequences.prompt_mask) if share else None
    if prompts is None or not worthwhile(_apart(sequences), _shared(sequences, prompts)):
        attention = torch.cat([sequences.prompt_mask, sequences.response_mask], 1).long()
        ids = torch.cat([sequences.prompt_ids, sequences.response_ids], 1)
        hidden: Tensor = trunk(
            input_ids=ids, attention_mask=attention, position_ids=positions(attention), use_cache=False
        ).last_hidden_state
        return hidden[:, sequences.prompt_ids.shape[1] - 1 :]
    last, cache = prefill(trunk, sequences.prompt_ids, sequences.prompt_mask, prompts)
    attention = torch.cat([sequences.prompt_mask, sequences.response_mask], 1).long()
    rest = trunk(
        input_ids=sequences.response_ids,
        attention_mask=attention,
        position_ids=positions(attention)[:, sequences.prompt_ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return torch.cat([last[prompts.of_row][:, None], rest], 1)


def pieces(sequences: Sequences, size: int, *, share: bool) -> Iterator[Tensor]:
    """All rows for passes without gradients, at most `size` at a time: rows of like length together, or, with `share`,
    rows of one prompt together, whichever has fewer tokens to compute."""
    rows = torch.arange(len(sequences))
    if share and len(sequences) > 1:
        lengths = sequences.prompt_mask.sum(1) + sequences.response_mask.sum(1)
        alike = rows.to(lengths.device)[lengths.argsort(stable=True)]
        grouped = by_prompt(sequences)
        if worthwhile(_tokens(sequences, alike, size), _tokens(sequences, grouped, size)):
            yield from functional.own_pieces(grouped, size)
            return
    yield from functional.micro_batches(sequences, rows, size)


def by_prompt(sequences: Sequences) -> Tensor:
    """Row indices with the rows of one prompt together, prompts of like length and with like responses near one another."""
    prompts = distinct_prompts(sequences.prompt_ids, sequences.prompt_mask)
    asked, answered = sequences.prompt_mask.sum(1), sequences.response_mask.sum(1)
    longest = torch.zeros(len(prompts), dtype=answered.dtype, device=answered.device)
    longest.scatter_reduce_(0, prompts.of_row, answered, "amax")
    order = torch.arange(len(sequences), device=answered.device)
    # From the least important key to the most: each sort keeps the order of those before it among equals.
    for key in (answered, prompts.of_row, longest[prompts.of_row], asked):
        order = order[key[order].argsort(stable=True)]
    return order


def worthwhile(apart: int, shared: int) -> bool:
    return shared <= WORTHWHILE * apart


def _tokens(sequences: Sequences, order: Tensor, size: int) -> int:
    """Positions to compute, padding included, if rows are taken in this order."""
    total = 0
    for rows in order.split(size):
        piece = sequences.select(rows)
        apart = _apart(piece)
        shared = _shared(piece, distinct_prompts(piece.prompt_ids, piece.prompt_mask))
        total += shared if worthwhile(apart, shared) else apart
    return total


def _apart(sequences: Sequences) -> int:
    return len(sequences) * (sequences.prompt_ids.shape[1] + sequences.response_ids.shape[1])


def _shared(sequences: Sequences, prompts: Distinct) -> int:
    return len(prompts) * sequences.prompt_ids.shape[1] + len(sequences) * sequences.response_ids.shape[1]
