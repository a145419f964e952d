"""Text from elsewhere (servers, models, files, names) before it is printed or stored: without secrets, and without anything
that acts on a terminal."""

from __future__ import annotations

import base64
import functools
import html
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
    r"(?P<gap>\\[nrt]|[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff])"
    r"|%(?P<url>[0-9a-fA-F]{2})|\\u00(?P<json>[0-9a-fA-F]{2})|(?P<html>&#?\w{1,8};)|\\(?P<sign>[\"\\/])"
)
"""What may stand between the characters of a secret that was broken into lines; and characters that are written otherwise: in a
URL, in JSON, in HTML."""


def redacted(text: str, *secrets: str) -> str:
    """The text with *** for every piece, of 8 characters or more, of these secrets and of the values of environment variables
    that are named like one (HF_TOKEN, OPENAI_API_KEY, ...): as they are, broken by white space, URL-encoded, in base64, in
    hexadecimal, or escaped for JSON or HTML. Shorter ones are no secrets (a local server takes any key). Clean a text before it is cut:
    a secret cut in two is still one."""
    for secret in dict.fromkeys((*secrets, *_of_environment())):
        if len(secret) >= _PIECE:
            text = _without(text, secret)
    return text


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


def _without(text: str, secret: str) -> str:
    letters, spans = _letters(text)
    pieces = _pieces(secret)
    found = (i for i in range(len(letters) - _PIECE + 1) if letters[i : i + _PIECE] in pieces)
    kept: list[str] = []
    end = 0
    for start, stop in _runs(found):
        kept += [text[end : spans[start][0]], HIDDEN]
        end = spans[stop - 1][1]
    return "".join([*kept, text[end:]])


def _letters(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text as a reader would decode it, without gaps, and where each letter of that begins and ends."""
    letters: list[str] = []
    spans: list[tuple[int, int]] = []
    end = 0
    for found in [*_WRITTEN.finditer(text), None]:
        start = len(text) if found is None else found.start()
        letters.append(text[end:start])
        spans += ((i, i + 1) for i in range(end, start))
        if found is None:
            break
        end = found.end()
        read = _decoded(found)
        letters.append(read)
        spans += [(start, end)] * len(read)
    return "".join(letters), spans


def _decoded(found: re.Match[str]) -> str:
    if found["gap"]:
        return ""
    if code := found["url"] or found["json"]:
        return chr(int(code, 16))
    return html.unescape(found["html"]) if found["html"] else found["sign"]


@functools.lru_cache(maxsize=64)
def _pieces(secret: str) -> frozenset[str]:
    forms = (_letters(form)[0] for form in _forms(secret))
    return frozenset(form[i : i + _PIECE] for form in forms for i in range(len(form) - _PIECE + 1))


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
