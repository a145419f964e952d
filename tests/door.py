"""The public door as text: every name that a plugin may import, with its signature or its fields.

python tests/door.py    # writes tests/door.txt anew, so that a change of the door shows in a diff
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = Path(__file__).with_name("door.txt")
DOOR = ("alignbench", "alignbench.functional", "alignbench.pretrained", "alignbench.hookspecs", "alignbench.testing")
SPECIAL = {"__call__", "__len__"}


def door() -> str:
    """One line for each name and each member, module by module, in alphabetical order."""
    return "\n\n".join("\n".join([f"# {module}", *_module(module)]) for module in DOOR) + "\n"


def _module(module: str) -> Iterator[str]:
    tree = _parsed(module)
    for name in sorted(_names(tree)):
        yield from _described(name, *_defined(tree, name))


def _parsed(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _names(tree: ast.Module) -> set[str]:
    """Those in `__all__`; else what the module defines, or imports under its own name so that others find it there."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names if alias.asname == alias.name}
    return {name for name in found if not name.startswith("_")}


def _defined(tree: ast.Module, name: str) -> tuple[ast.stmt, ...]:
    """Where a name is defined: here, or in the module of the core that it is imported from."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            assert node.module, f"{name} is imported from nowhere"
            return _defined(_parsed(node.module), name)
    return tuple(node for node in tree.body if name in _bound(node))


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {node.target.id} if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else set()


def _described(name: str, *nodes: ast.stmt) -> Iterator[str]:
    assert nodes, f"{name} is defined nowhere"
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            yield _function(node)
        elif isinstance(node, ast.ClassDef):
            yield from _class(node)
        else:
            yield ast.unparse(node)


def _function(node: ast.FunctionDef) -> str:
    kinds = [ast.unparse(decorator) for decorator in node.decorator_list]
    before = "".join(f"@{kind} " for kind in kinds)
    return f"{before}def {node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else '?'}"


def _class(node: ast.ClassDef) -> Iterator[str]:
    before = "".join(f"@{ast.unparse(decorator)} " for decorator in node.decorator_list)
    bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
    yield f"{before}class {node.name}({bases})"
    for member in node.body:
        if isinstance(member, ast.AnnAssign | ast.Assign):
            if not any(name.startswith("_") for name in _bound(member)):
                yield f"    {ast.unparse(member)}"
        elif isinstance(member, ast.FunctionDef) and (not member.name.startswith("_") or member.name in SPECIAL):
            yield f"    {_function(member)}"


if __name__ == "__main__":
    SNAPSHOT.write_text(door(), encoding="utf-8")
