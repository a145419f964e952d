"""The reference of the public door, made from its docstrings: one page for each part of it.

python tests/reference.py    # writes docs/reference/*.md anew
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tests import door  # noqa: E402

PAGES: Mapping[str, str] = {
    "door": "alignbench",
    "functional": "alignbench.functional",
    "pretrained": "alignbench.pretrained",
    "testing": "alignbench.testing",
}
"""Page and module."""
NOTE = "This page is made from the docstrings by `python tests/reference.py`. Shapes: B rows (one response each), P prompt tokens, R response tokens."
_CODE = re.compile(r"(`[^`]*`)")
_MARKS = re.compile(r"[<*]|\[(?=[^\]]*\]:)")
"""What Markdown would take for its own: a tag, an emphasis, the target of a link."""


@dataclass(frozen=True)
class Entry:
    """A name of the door: how it is written, what is said of it, and its members. `module`: the file that defines it."""

    name: str
    module: str
    code: str
    says: str
    members: tuple[Entry, ...] = ()


def entries(module: str) -> Iterator[Entry]:
    """Those of a module, in alphabetical order. A type variable is nobody's to use."""
    tree, found = door._parsed(module), importlib.import_module(module)
    for name in sorted(door._names(tree), key=lambda name: (name.casefold(), name)):
        where, tree_of = _home(module, tree, name)
        node = door._defined(tree_of, name)[-1]
        if "TypeVar" in ast.unparse(node):
            continue
        if isinstance(node, ast.ClassDef):
            code = "\n".join(_head(node))
            yield Entry(name, where, code, _said(node), tuple(_members(getattr(found, name), node)))
        elif isinstance(node, ast.FunctionDef):
            yield Entry(name, where, door._function(node), _said(node))
        else:
            yield Entry(name, where, ast.unparse(node), _below(tree_of.body, node))


def _home(module: str, tree: ast.Module, name: str) -> tuple[str, ast.Module]:
    """The module that defines a name, however often it is imported on the way."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            assert node.module, f"{name} is imported from nowhere"
            return _home(node.module, door._parsed(node.module), name)
    return module, tree


def _head(node: ast.ClassDef) -> Iterator[str]:
    """A class with its fields, as Python writes them."""
    yield from (f"@{ast.unparse(decorator)}" for decorator in node.decorator_list)
    bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
    fields = [
        f"    {ast.unparse(member)}"
        for member in node.body
        if isinstance(member, ast.AnnAssign | ast.Assign) and not any(x.startswith("_") for x in door._bound(member))
    ]
    yield f"class {node.name}({bases}){':' if fields else ''}".replace("()", "")
    yield from fields


def _members(of: Any, node: ast.ClassDef) -> Iterator[Entry]:
    """Its fields of which something is said, and its methods; one without a docstring has that of the class it derives from."""
    for member in node.body:
        if isinstance(member, ast.AnnAssign | ast.Assign):
            (name, *_) = door._bound(member)
            if not name.startswith("_") and (says := _below(node.body, member)):
                yield Entry(f"{node.name}.{name}", "", "", says)
    for member in node.body:
        if not isinstance(member, ast.FunctionDef):
            continue
        if not member.name.startswith("_") or (member.name in door.SPECIAL and ast.get_docstring(member)):
            says = inspect.getdoc(getattr(of, member.name)) or ""
            yield Entry(f"{node.name}.{member.name}", "", door._function(member), says)


def _said(node: ast.ClassDef | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _below(body: list[ast.stmt], node: ast.stmt) -> str:
    """The docstring below an assignment."""
    after = body[body.index(node) + 1 :][:1]
    if after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant):
        return inspect.cleandoc(str(after[0].value.value))
    return ""


def written(page: str) -> str:
    """The whole page."""
    module = PAGES[page]
    parts = [f"# {module}", _text(ast.get_docstring(door._parsed(module)) or ""), NOTE]
    if page != "door":
        parts += [part for entry in entries(module) for part in _entry(entry, "##")]
        return "\n\n".join(part for part in parts if part) + "\n"
    groups: dict[str, list[Entry]] = {}
    for entry in entries(module):
        groups.setdefault(entry.module, []).append(entry)
    for home, found in sorted(groups.items()):
        about = (ast.get_docstring(door._parsed(home)) or "").partition("\n\n")[0]
        parts += [f"## {home.removeprefix('alignbench.')}", _text(about)]
        parts += [part for entry in found for part in _entry(entry, "###")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _entry(entry: Entry, level: str) -> Iterator[str]:
    yield f"{level} {entry.name}"
    yield f"```python\n{entry.code}\n```"
    yield _text(entry.says)
    fields = [member for member in entry.members if not member.code]
    yield "\n".join(f"- `{m.name.partition('.')[2]}`: {' '.join(_text(m.says).split())}" for m in fields)
    for member in entry.members:
        if member.code:
            yield f"{level}# {member.name}"
            yield f"```python\n{member.code}\n```"
            yield _text(member.says)


def _text(docstring: str) -> str:
    """As Markdown: what stands outside of `code` is plain text; indented lines are code."""
    blocks = []
    for block in docstring.split("\n\n"):
        if all(line.startswith("    ") for line in block.splitlines()):
            blocks.append(block)
            continue
        parts = _CODE.split(block)
        blocks.append("".join(p if i % 2 else _MARKS.sub(r"\\\g<0>", p) for i, p in enumerate(parts)))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in PAGES:
        (FOLDER / f"{each}.md").write_text(written(each), encoding="utf-8")
