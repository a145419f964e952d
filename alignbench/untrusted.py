"""Text from elsewhere (servers, models, files, names) before it is printed or stored: without secrets, and without anything
that acts on a terminal."""

from __future__ import annotations

import base64
import functools
import html
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator

from alignbench.bounds import printable

HIDDEN = "***"
_SECRET = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|AUTHORIZATION|BEARER|KEY$|(^|_)PAT$", re.IGNORECASE
)
"""In the name of a variable."""
_PIECE = 8
"""Characters of a secret that give it away: what is shorter says little, and stands in ordinary words."""
_WRITTEN = re.compile(
    r"(?P<gap>(?:\\+[nrt]|[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff])+)"
    r"|%(?P<url>[0-9a-fA-F]{2})|\\+u00(?P<json>[0-9a-fA-F]{2})|(?P<html>&#?\w{1,8};)|\\+(?P<sign>[\"/])|\\{2,}"
)
"""What may stand between the characters of a secret that was broken into lines; and characters that are written otherwise: in a
URL, in JSON (and in JSON within JSON: any number of backslashes), in HTML."""


def redacted(text: str, *secrets: str) -> str:
    """The text with *** for every piece, of 8 characters or more, of these secrets and of the values of environment variables
    that are named like one (HF_TOKEN, OPENAI_API_KEY, ...): as they are, broken by white space, URL-encoded, in base64, in
    hexadecimal, or escaped for JSON or HTML. Shorter ones are no secrets (a local server takes any key). Clean a text before it is cut:
    a secret cut in two is still one."""
    pieces = _pieces_of_all(tuple(secret for secret in (*secrets, *_of_environment()) if len(secret) >= _PIECE))
    return _without(text, pieces) if pieces else text


def plain(text: str) -> str:
    """Without control characters: a name must not move the cursor or colour the terminal."""
    return printable(text, "?")


def told(text: str) -> str:
    """A message as it may be printed: no secret, its lines kept, no other control character."""
    return "\n".join(plain(line.replace("\t", "    ")) for line in redacted(text).split("\n"))


class Formatter(logging.Formatter):
    """Log records as `told`, with tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return told(super().format(record))


def _of_environment() -> Iterator[str]:
    """Values of variables that are named like a secret. A path (GOOGLE_APPLICATION_CREDENTIALS) is none."""
    for name, value in os.environ.items():
        value = value.strip()
        if len(value) >= _PIECE and _SECRET.search(name) and not os.path.exists(value):
            yield value


def _without(text: str, pieces: frozenset[str]) -> str:
    letters = _letters(text)
    found = (i for i in range(len(letters) - _PIECE + 1) if letters[i : i + _PIECE] in pieces)
    ends = [place for start, stop in _runs(found) for place in (start, stop - 1)]
    kept: list[str] = []
    end = 0
    places = _places(text, ends)
    for first, last in zip(places, places, strict=True):
        kept += [text[end : first[0]], HIDDEN]
        end = last[1]
    return "".join([*kept, text[end:]])


def _letters(text: str) -> str:
    """The text as a reader would decode it, without gaps."""
    read = io.StringIO()  # a list of parts would be many times the text
    read.writelines(part for _, _, part in _parts(text))
    return read.getvalue()


def _places(text: str, wanted: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Where each of these `_letters`, in their order, begins and ends in the text."""
    before, start, end, part, parts = 0, 0, 0, "", _parts(text)
    for letter in wanted:
        while letter >= before + len(part):
            before += len(part)
            start, end, part = next(parts)
        as_it_is = len(part) == end - start
        yield (start + letter - before, start + letter - before + 1) if as_it_is else (start, end)


def _parts(text: str) -> Iterator[tuple[int, int, str]]:
    """The text in pieces: where each begins and ends, and what a reader would decode it to."""
    end = 0
    for found in _WRITTEN.finditer(text):
        yield end, found.start(), text[end : found.start()]
        end = found.end()
        yield found.start(), end, _decoded(found)
    yield end, len(text), text[end:]


def _decoded(found: re.Match[str]) -> str:
    if found["gap"]:
        return ""
    if code := found["url"] or found["json"]:
        return chr(int(code, 16))
    return html.unescape(found["html"]) if found["html"] else found["sign"] or "\\"


@functools.lru_cache(maxsize=64)
def _pieces(secret: str) -> frozenset[str]:
    forms = map(_letters, _forms(secret))
    return frozenset(form[i : i + _PIECE] for form in forms for i in range(len(form) - _PIECE + 1))


@functools.lru_cache(maxsize=64)
def _pieces_of_all(secrets: tuple[str, ...]) -> frozenset[str]:
    return frozenset[str]().union(*map(_pieces, secrets))


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be written, letter by letter apart. Of base64 there are three, by where it begins among the bytes; the ends
    of each, which depend on its neighbours, are left out."""
    yield secret
    raw = secret.encode(errors="replace")
    yield raw.decode("latin-1")  # as a URL writes it, byte by byte
    yield raw.hex()
    yield raw.hex().upper()
    for before in range(3):
        padded = b"\0" * before + raw
        whole = base64.b64encode(padded).decode().rstrip("=")
        known = whole[-(-before * 8 // 6) : len(padded) * 8 // 6]
        yield known
        yield known.translate(str.maketrans("+/", "-_"))


def _runs(found: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Overlapping pieces as one: where each run begins, and where it has ended."""
    start = stop = -1
    for place in found:
        if place > stop:
            if stop > 0:
                yield start, stop
            start = place
        stop = place + _PIECE
    if stop > 0:
        yield start, stop
