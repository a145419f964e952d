"""Where a response states its answer, and checks that read it in this process: exact, number and choice.

Each reads a response once from left to right: none has a pattern that could take long on a hostile one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

LONGEST = 400
"""Signs of a number that is still read: no answer needs more, and exact arithmetic on more takes long."""

_MARKER = re.compile(r"####|\\(?:boxed|fbox)\s?\{|\b(?:final answer|answer)(?: is|:)|\banswer is", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-+−]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?: ?/ ?\d+)?")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+")
# "A dog" and "I think" name no choice, "A because ..." does.
_ARTICLE = r"[AI](?:[-'’]\w|[^\S\n]+(?!(?:because|since|as|is|not)\b)\w)"
_LETTER = re.compile(rf"\W{{0,3}}(?!{_ARTICLE})([A-Z])\b")
_MARKED_LETTER = re.compile(r"(?<![\w'])([A-Z])(?:\)|[.:](?=\s|$))")
_WORD = re.compile(r"\w+")


def stated(response: str) -> str | None:
    """What stands after the last "####", "\\boxed{" (up to its bracket), "answer is" or "answer:"; None without any."""
    last = None
    for last in _MARKER.finditer(response):  # noqa: B007 (the last one is kept)
        pass
    if last is None:
        return None
    rest = response[last.end() :]
    if not last.group().endswith("{"):
        return rest.strip(" :\n\t")
    depth = 1
    for place, sign in enumerate(rest):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return rest[:place]
    return rest


def normal(text: str) -> str:
    """Compatible forms of signs made one (NFKC), case folded, runs of white space one space, no quotes or full stop around."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip("\"'`*“”‘’ ").rstrip(".").strip()


def exact(response: str, answer: str) -> bool:
    """The response, or what it states as its answer, is the reference's text."""
    wanted = normal(answer)
    return bool(wanted) and wanted in (normal(response), normal(stated(response) or ""))


def read_number(text: str) -> Fraction | None:
    """The value of a number as people write it: 1,234.50, $3, 1/2, 2e-3; None of anything else."""
    if len(text) > LONGEST:
        return None
    whole, _, below = text.replace("$", "").replace("−", "-").replace(" ", "").partition("/")
    if "," in whole:
        if not _GROUPED.fullmatch(re.split(r"[.eE]", whole.lstrip("+-"))[0]):
            return None
        whole = whole.replace(",", "")
    try:
        return Fraction(whole) / Fraction(below or 1)
    except (ValueError, ZeroDivisionError):
        return None


def numbers(text: str) -> list[str]:
    """All numbers in a text, as written."""
    return [found.group().rstrip(",") for found in _NUMBER.finditer(text)]


def reference_number(answer: str) -> Fraction | None:
    """The number that a reference holds: what it states as its answer (GSM8K's end with "#### 42"), or its only one."""
    place = stated(answer)
    found = numbers(answer) if place is None else numbers(place)[:1]
    return read_number(found[0]) if len(found) == 1 else None


def number(response: str, answer: str) -> bool:
    """The first number of what the response states as its answer, or else its last one, equals the reference's."""
    place = stated(response)
    found = numbers(response)[-1:] if place is None else numbers(place)[:1]
    value = read_number(found[0]) if found else None
    return value is not None and value == reference_number(answer)


def right_choice(answer: str, choices: Sequence[str]) -> int | None:
    """Which choice the reference names: by its text, or by its letter."""
    texts = [normal(choice) for choice in choices]
    if normal(answer) in texts:
        return texts.index(normal(answer))
    letter = answer.strip(" ().:")
    return _index(letter.upper(), choices) if len(letter) == 1 else None


def chosen(response: str, choices: Sequence[str]) -> int | None:
    """The choice that a response names, by letter or by text; None where it names none, or several."""
    place, texts = stated(response), [normal(choice) for choice in choices]
    region = response if place is None else place
    if normal(region) in texts:
        return texts.index(normal(region))
    if place is not None and (letter := _LETTER.match(place)):
        return _index(letter.group(1), choices)
    if len(bare := region.strip(" \n\t().:*")) == 1:
        return _index(bare.upper(), choices)
    marked = (_index(match.group(1), choices) for match in _MARKED_LETTER.finditer(region))
    if letters := {found for found in marked if found is not None}:
        return next(iter(letters)) if len(letters) == 1 else None
    said = _words(region)
    named = [i for i, choice in enumerate(choices) if _words(choice).strip() and _words(choice) in said]
    # "blue" stands within "not blue": of choices that hold one another the longest is meant
    longest = [i for i in named if not any(i != j and texts[i] in texts[j] for j in named)]
    return longest[0] if len(longest) == 1 else None


def choice(response: str, answer: str, choices: Sequence[str]) -> bool:
    """The response names the right choice and no other."""
    wanted = right_choice(answer, choices)
    return wanted is not None and chosen(response, choices) == wanted


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(normal(text)))} "


def _index(letter: str, choices: Sequence[str]) -> int | None:
    place = ord(letter) - ord("A") if len(letter) == 1 else -1  # the capital of one letter may be two
    return place if 0 <= place < len(choices) else None
