"""What a data source holds, looked at before anything is trained: how it was read, how long it is, and what looks wrong in it."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from alignbench.contracts import DataSource, Policy
from alignbench.functional import ranking_to_pairs
from alignbench.pipeline.data.agreement import Agreement, agreement
from alignbench.records import Demonstration, Description, Labelled, PreferencePair, Prompt, Ranking, Split

CONTROL = re.compile(r"<\|[\w ]{1,30}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<[be]os>")
"""What chat templates write between messages: in a text it is a sign of one that was templated before."""
SHINGLE, ALIKE = 5, 0.8
"""Prompts are near duplicates where their sets of so many neighbouring words have this Jaccard similarity (Broder 1997)."""
LEAST_PAIRS = 20
"""Below so many pairs no share is called suspicious."""
UNEVEN = 0.65
"""Share of pairs from which on the longer response counts as what is preferred."""
WORDS, TOKENS = "words", "tokens"
Record = Ranking | Labelled | Demonstration | Prompt


@dataclass(frozen=True)
class Lengths:
    """Of prompts or of responses, in `unit`. `bins`: how many have up to so many, each bound twice the one before."""

    what: str
    unit: str
    count: int
    median: int
    largest: int
    bins: Mapping[int, int]
    limit: int | None = None
    over: int = 0


@dataclass(frozen=True)
class Row:
    """One record for people to read: the prompt and its responses, as the model reads them where there is a model."""

    kind: str
    prompt: str
    responses: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """`records` counts what the source gives; `counts` are its own, of rows; `suspicious` are lines for people."""

    description: Description | None
    records: Mapping[str, int]
    counts: Mapping[str, int]
    rows: tuple[Row, ...]
    lengths: tuple[Lengths, ...]
    agreement: Agreement | None
    suspicious: tuple[str, ...]


def inspect(source: DataSource, policy: Policy | None, *, rows: int = 3) -> Inspection:
    """Looks at all of it. With a policy, lengths are its tokens, against its limits, and rows are as it reads them; `rows` of them are
    shown, in the order in which the source gives them."""
    train, held_out = source.prompts(Split.TRAIN), source.prompts(Split.EVALUATION)
    rankings, labelled, demonstrations = source.rankings(), source.labelled(), source.demonstrations()
    records = {
        "training prompts": len(train),
        "evaluation prompts": len(held_out),
        "demonstrations": len(demonstrations),
        "rankings": len(rankings),
        "labelled responses": len(labelled),
        "prompts with a reference": sum(prompt.reference is not None for prompt in [*train, *held_out]),
    }
    every: Iterable[Record] = itertools.chain(rankings, labelled, demonstrations, train)
    shown = list(itertools.islice(every, max(rows, 0)))
    responses: list[str] = [
        *dict.fromkeys(
            [text for ranking in rankings for text in ranking.responses]
            + [one.response for one in labelled]
            + [one.response for one in demonstrations]
        )
    ]
    return Inspection(
        source.description(),
        {name: count for name, count in records.items() if count},
        {name: count for name, count in source.counts().items() if count},
        tuple(_row(record, policy) for record in shown),
        tuple(_lengths([*train, *held_out], responses, policy)),
        agreement(rankings),
        tuple(suspicious(rankings, labelled, demonstrations, train, held_out)),
    )


def _row(record: Record, policy: Policy | None) -> Row:
    match record:
        case Ranking():
            order = sorted(range(len(record.ranks)), key=lambda k: record.ranks[k])
            kind = "ranking" + (f" by {record.annotator}" if record.annotator else "")
            named = [(f"rank {record.ranks[k] + 1}", record.responses[k]) for k in order]
            prompt = record.prompt
        case Labelled():
            kind, prompt, named = "label", record.prompt, [("good" if record.good else "bad", record.response)]
        case Demonstration():
            kind, prompt, named = "demonstration", record.prompt, [("demonstrated", record.response)]
        case _:
            kind, prompt, named = "prompt", record, []
    if policy is None:
        read = "\n".join(f"{message.role}: {message.content}" for message in prompt.messages)
        return Row(kind, read, tuple(f"{name}: {text}" for name, text in named))
    return Row(kind, _read(policy, prompt), tuple(f"{name}: {_cut(policy, text)}" for name, text in named))


def _read(policy: Policy, prompt: Prompt) -> str:
    """With the template applied, or why it is set aside."""
    if (tokens := policy.prompt_tokens(prompt)) > policy.max_prompt_tokens:
        return f"{prompt.text}\n(set aside: {tokens} tokens, more than {policy.max_prompt_tokens})"
    asked = policy.encode([prompt], [""]).sequences
    return str(policy.tokenizer.decode(asked.prompt_ids[0][asked.prompt_mask[0].bool()]))


def _cut(policy: Policy, response: str) -> str:
    """With its end marked where it is cut."""
    (tokens,) = policy.response_tokens([response], [True])
    if len(tokens) <= policy.max_response_tokens:
        return response
    (kept,) = policy.response_texts([tokens[: policy.max_response_tokens]])
    return f"{kept} (cut here: {len(tokens) - policy.max_response_tokens} of {len(tokens)} tokens are left out)"


def _lengths(prompts: Sequence[Prompt], responses: Sequence[str], policy: Policy | None) -> Iterable[Lengths]:
    if policy is None:
        count: Callable[[Prompt], int] = lambda prompt: sum(len(m.content.split()) for m in prompt.messages)  # noqa: E731
        yield from _of("prompts", WORDS, [count(prompt) for prompt in prompts], None)
        yield from _of("responses", WORDS, [len(text.split()) for text in responses], None)
        return
    lengths = [policy.prompt_tokens(prompt) for prompt in prompts]
    yield from _of("prompts", TOKENS, lengths, policy.max_prompt_tokens)
    rows = policy.response_tokens(responses, [True] * len(responses))
    yield from _of("responses", TOKENS, [len(row) for row in rows], policy.max_response_tokens)


def _of(what: str, unit: str, lengths: Sequence[int], limit: int | None) -> Iterable[Lengths]:
    if not lengths:
        return
    ordered = sorted(lengths)
    bins = Counter(max(1 << (length - 1).bit_length(), 8) if length else 8 for length in ordered)
    over = sum(length > limit for length in ordered) if limit else 0
    middle = ordered[len(ordered) // 2]
    yield Lengths(what, unit, len(ordered), middle, ordered[-1], dict(sorted(bins.items())), limit, over)


def suspicious(
    rankings: Sequence[Ranking],
    labelled: Sequence[Labelled],
    demonstrations: Sequence[Demonstration],
    train: Sequence[Prompt],
    held_out: Sequence[Prompt],
) -> Iterable[str]:
    """One line for each thing that a person should look at before training."""
    pairs = [pair for ranking in rankings for pair in ranking_to_pairs(ranking)]
    yield from _longer(pairs)
    if rankings and not pairs:
        yield f"All {len(rankings)} rankings are ties, or of responses that are the same: there is nothing to learn from them."
    ranked = [ranking for ranking in rankings if len(set(ranking.ranks)) > 1]
    if len(ranked) >= LEAST_PAIRS and all(ranking.ranks[0] == 0 for ranking in ranked):
        yield "The best response stands first in every row. In columns named chosen and rejected it must; elsewhere it is odd."
    said = {(pair.prompt.messages, pair.chosen, pair.rejected) for pair in pairs}
    if both := sum((messages, rejected, chosen) in said for messages, chosen, rejected in said) // 2:
        yield f"{both} pairs of responses are ranked one way in one row and the other way in another."
    good = sum(one.good for one in labelled)
    if labelled and good in (0, len(labelled)):
        yield f"All {len(labelled)} labelled responses are called {'good' if good else 'bad'}: there is nothing to tell apart."
    texts = [m.content for prompt in [*train, *held_out] for m in prompt.messages]
    texts += [text for ranking in rankings for text in ranking.responses] + [one.response for one in demonstrations]
    found = Counter(match for text in texts for match in set(CONTROL.findall(text)))
    if found:
        shown = ", ".join(f"{token} in {count}" for token, count in found.most_common(3))
        yield f"Texts hold what chat templates write ({shown}): they may have been templated before."
    if near := near_duplicates(train, held_out):
        yield (
            f"{near} evaluation prompts have a near duplicate among the training prompts ({ALIKE:.0%} of their "
            f"sequences of {SHINGLE} words are the same)."
        )


def _longer(pairs: Sequence[PreferencePair]) -> Iterable[str]:
    gaps = [len(pair.chosen.split()) - len(pair.rejected.split()) for pair in pairs]
    uneven = [gap for gap in gaps if gap]
    if len(uneven) < LEAST_PAIRS:
        return
    share = sum(gap > 0 for gap in uneven) / len(uneven)
    longer = share >= 0.5
    if max(share, 1 - share) >= UNEVEN:
        yield (
            f"The better response is the {'longer' if longer else 'shorter'} one in {max(share, 1 - share):.0%} of {len(uneven)} "
            f"pairs, by {abs(sum(gaps) / len(gaps)):.0f} words on average: length alone may be what is learnt."
        )


def near_duplicates(train: Iterable[Prompt], held_out: Iterable[Prompt]) -> int:
    """How many held-out prompts are nearly one of the training prompts."""
    ours = [_shingles(prompt) for prompt in held_out]
    often = Counter(itertools.chain.from_iterable(ours))
    # Of a set that is alike at least this part is in the other: its rarest shingles will do to find it (prefix filtering, Chaudhuri
    # et al. 2006), and what all prompts begin with leads to none.
    where: dict[tuple[str, ...], list[int]] = {}
    for i, shingles in enumerate(ours):
        rarest = sorted(shingles, key=lambda shingle: (often[shingle], shingle))
        for shingle in rarest[: len(rarest) - math.ceil(ALIKE * len(rarest)) + 1]:
            where.setdefault(shingle, []).append(i)
    found: set[int] = set()
    for prompt in train:
        theirs = _shingles(prompt)
        likely = set(itertools.chain.from_iterable(where.get(shingle, ()) for shingle in theirs)) - found
        found.update(i for i in likely if len(ours[i] & theirs) >= ALIKE * len(ours[i] | theirs))
    return len(found)


def _shingles(prompt: Prompt) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", " ".join(m.content for m in prompt.messages).casefold())
    return {tuple(words[i : i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, 1))}
