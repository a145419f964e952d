"""Markdown of strangers as a tree that a browser builds elements from: an allow-list of tags, no attribute, no address, no HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST_MARKED = 20_000
"""Characters; what is longer is shown as it is: nobody reads it for its looks, and reading markdown takes time."""
TAGS = frozenset(
    [
        "p",
        "strong",
        "em",
        "s",
        "code",
        "pre",
        "ul",
        "ol",
        "li",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "hr",
        "br",
    ]
)  # the browser has the same list
_PARSER = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
Node = str | dict[str, Any]


def tree(text: str) -> list[Node]:
    """Nodes are text, or {"tag", "children"}. `heading` is a tag of ours: a response's headings are none of the page's."""
    text = visible(text)
    if len(text) > MOST_MARKED:
        return [{"tag": "plain", "children": [text]}]
    return _nodes(_PARSER.parse(text))


def visible(text: str) -> str:
    """Control characters as the symbols that stand for them; newlines and tabs stay."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub(lambda found: "␡" if found[0] == "\x7f" else chr(0x2400 + ord(found[0])), text)


def _nodes(tokens: Sequence[Token]) -> list[Node]:
    """The tree of a flat list of opening and closing tokens."""
    levels: list[list[Node]] = [[]]
    for token in tokens:
        here = levels[-1]
        if token.nesting > 0:
            children: list[Node] = []
            here.append({"tag": _tag(token), "children": children})
            levels.append(children)
        elif token.nesting < 0:
            levels.pop()
            if token.type == "link_close" and token.meta.get("to"):
                levels[-1].append(f" ({token.meta['to']})")
        elif token.type == "inline":
            here += _nodes(_with_addresses(token.children or ()))
        elif token.type in ("fence", "code_block"):
            here.append({"tag": "pre", "children": [token.content]})
        elif token.type == "code_inline":
            here.append({"tag": "code", "children": [token.content]})
        elif token.type == "image":
            here.append(f"[image: {token.content}]")
        elif token.type == "softbreak":
            here.append("\n")
        elif token.tag in ("hr", "br"):
            here.append({"tag": token.tag, "children": []})
        else:
            here.append(token.content)
    return levels[0]


def _with_addresses(tokens: Sequence[Token]) -> list[Token]:
    """A link is its words and, as text, where it leads: nobody is led away by a response."""
    addresses: list[str] = []
    for token in tokens:
        if token.type == "link_open":
            addresses.append(str(token.attrGet("href") or ""))
        elif token.type == "link_close":
            token.meta["to"] = addresses.pop()
    return list(tokens)


def _tag(token: Token) -> str:
    if token.type == "heading_open":
        return "heading"
    return token.tag if token.tag in TAGS else "span"
