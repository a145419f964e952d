"""What rows of a batch have in common is computed once: the start that all prompts share (a template's, a system message), and
the prompt that several responses answer. Which parts are shared is decided where it saves work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from alignbench import Sequences, functional
from alignbench_hf.architecture.trunk import NO_LIMIT, ends, new_cache, read, select_rows

WORTHWHILE = 0.9
"""A part is read apart where that leaves at most this share of the tokens: two passes cost more than one of the same length."""


@dataclass(frozen=True)
class Distinct:
    """The different prompts of a batch: `first` [U], the row where each is met first; `of_row` [B], which of them a row has."""

    first: Tensor
    of_row: Tensor

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Reading:
    """How B rows are read: the first `start` tokens of all prompts once, then the rest of each of `prompts` once (None: with
    its rows), then what is left of every row. `tokens`: positions to compute, padding included."""

    start: int
    prompts: Distinct | None
    tokens: int


def reading(prompt_ids: Tensor, prompt_mask: Tensor, response_width: int, *, start: bool = True) -> Reading:
    """The cheapest reading of rows with these prompts, [B, P], and responses of that width; with or without a common start."""
    rows, width = prompt_ids.shape
    found = Reading(0, None, rows * (width + response_width))
    if rows == 1:
        return found
    distinct = distinct_prompts(prompt_ids, prompt_mask)
    tokens = len(distinct) * width + rows * response_width
    if worthwhile(found.tokens, tokens):
        found = Reading(0, distinct, tokens)
    readers = len(distinct) if found.prompts else rows
    common = common_start(prompt_ids, prompt_mask) if start and readers > 1 else 0
    tokens = found.tokens - (readers - 1) * common
    if common and worthwhile(found.tokens, tokens):
        found = Reading(common, found.prompts, tokens)
    return found


def worthwhile(apart: int, shared: int) -> bool:
    return shared <= WORTHWHILE * apart


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


def common_start(prompt_ids: Tensor, prompt_mask: Tensor) -> int:
    """With how many equal tokens all prompts begin, at least one token of each left out: what follows it is read off there."""
    lengths = prompt_mask.sum(1)
    most = max(int(lengths.min()) - 1, 0)
    columns = (prompt_ids.shape[1] - lengths)[:, None] + torch.arange(most, device=prompt_ids.device)
    begin = prompt_ids.gather(1, columns)
    return int((begin == begin[:1]).all(0).long().cumprod(0).sum())


def positions(attention: Tensor) -> Tensor:
    """Counted from a row's first token, wherever its padding is."""
    return (attention.cumsum(1) - 1).clamp(min=0)


@dataclass(frozen=True)
class Rows:
    """Token ids and attention [B, T] of whole rows whose common start stands in the first columns, padding behind it."""

    ids: Tensor
    attention: Tensor

    def read(self, trunk: Any, columns: slice, rows: Tensor | slice, cache: DynamicCache | None) -> Tensor:
        """Hidden states [b, columns, H] of some rows, after the columns that the cache holds."""
        attention = self.attention[rows, : columns.stop]
        return read(trunk, self.ids[rows, columns], attention, positions(attention)[:, columns], cache)


def aligned(prompt_ids: Tensor, prompt_mask: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Left-padded prompts with their common start moved to the first columns: ids and mask, [B, P] as before."""
    mask = prompt_mask.bool()
    if not start:
        return prompt_ids, mask
    row = int(mask.sum(1).argmax())
    begin = prompt_ids[row][mask[row]][:start].expand(len(mask), -1)
    rest = (mask & (mask.cumsum(1) > start))[:, start:]
    return torch.cat([begin, prompt_ids[:, start:]], 1), torch.cat([torch.ones_like(begin, dtype=torch.bool), rest], 1)


def prefill(
    trunk: Any, prompt_ids: Tensor, prompt_mask: Tensor, *, share: bool, start: bool = True
) -> tuple[Tensor, Tensor, DynamicCache]:
    """Reads prompts [B, P]: the state at the end of each [B, H]; the attention [B, P] to the columns of the cache; the cache."""
    plan = reading(prompt_ids, prompt_mask, 0, start=start) if share else Reading(0, None, 0)
    ids, mask = aligned(prompt_ids, prompt_mask, plan.start)
    rows, cache = Rows(ids, mask.long()), new_cache(trunk)
    last = _read_prompts(trunk, rows, ids.shape[1], plan, cache)
    return last if plan.prompts is None else last[plan.prompts.of_row], rows.attention, cache


def _read_prompts(trunk: Any, rows: Rows, width: int, plan: Reading, cache: DynamicCache) -> Tensor:
    """The last states of the prompts that are read, one for each different one; the cache is left with all rows."""
    readers = slice(None) if plan.prompts is None else plan.prompts.first
    _read_start(trunk, rows, plan, cache)
    last = rows.read(trunk, slice(plan.start, width), readers, cache)[:, -1]
    if plan.prompts is not None:
        select_rows(cache, plan.prompts.of_row)
    return last


def _read_start(trunk: Any, rows: Rows, plan: Reading, cache: DynamicCache) -> None:
    """Fills the cache with the common start, for all who read on."""
    if plan.start:
        rows.read(trunk, slice(0, plan.start), slice(0, 1), cache)
        readers = len(rows.ids) if plan.prompts is None else len(plan.prompts)
        select_rows(cache, torch.zeros(readers, dtype=torch.long, device=rows.ids.device))


def states(trunk: Any, sequences: Sequences, *, share: bool, start_within: int = NO_LIMIT) -> Tensor:
    """Hidden states before each response token and after the last, [B, R + 1, H]. With `share`, what rows have in common is
    read once, where that is worth it (their start in rows of at most `start_within` tokens); gradients flow through it
    from all of them."""
    width, longest = sequences.prompt_ids.shape[1], sequences.response_ids.shape[1]
    start = width + longest <= start_within
    plan = reading(sequences.prompt_ids, sequences.prompt_mask, longest, start=start) if share else Reading(0, None, 0)
    ids, mask = aligned(sequences.prompt_ids, sequences.prompt_mask, plan.start)
    rows = Rows(
        torch.cat([ids, sequences.response_ids], 1), torch.cat([mask, sequences.response_mask.bool()], 1).long()
    )
    cache = new_cache(trunk) if plan.start or plan.prompts else None
    if plan.prompts is not None and cache is not None:
        last = _read_prompts(trunk, rows, width, plan, cache)
        ends(cache)
        rest = rows.read(trunk, slice(width, width + longest), slice(None), cache)
        return torch.cat([last[plan.prompts.of_row][:, None], rest], 1)
    if cache is not None:
        _read_start(trunk, rows, plan, cache)
        ends(cache)
    hidden = rows.read(trunk, slice(plan.start, width + longest), slice(None), cache)
    return hidden[:, width - 1 - plan.start :]


def pieces(sequences: Sequences, size: int, *, share: bool) -> Iterator[Tensor]:
    """All rows for passes without gradients, at most `size` at a time: rows of like length together, or, with `share`,
    rows of one prompt together, whichever has fewer tokens to compute."""
    rows = (sequences.prompt_mask.sum(1) + sequences.response_mask.sum(1)).argsort(stable=True)
    if share and len(sequences) > 1:
        grouped = by_prompt(sequences)
        if worthwhile(_tokens(sequences, rows, size), _tokens(sequences, grouped, size)):
            rows = grouped
    yield from functional.passes(rows, size)


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


def _tokens(sequences: Sequences, order: Tensor, size: int) -> int:
    """Positions to compute, padding included, if rows are taken in this order."""
    parts = map(sequences.select, order.split(size))
    return sum(reading(part.prompt_ids, part.prompt_mask, part.response_ids.shape[1]).tokens for part in parts)
