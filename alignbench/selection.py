"""A component that somebody chose, with its settings: how it is built, and what tells it from others."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignbench.errors import UserError, unknown_name
from alignbench.plugins import Component, Kind, registry


@dataclass(frozen=True)
class Selected:
    """A chosen component: `label` is what the user chose (a preset's name or the component's own)."""

    component: Component
    label: str
    config: Any

    def load(self) -> Any:
        """Its class."""
        return self.component.load()

    def build(self, **wiring: Any) -> Any:
        """It, from its config and what its kind is wired to."""
        return self.load()(self.config, **wiring)

    def fingerprint(self) -> str:
        """A digest of its identity."""
        return digest(self.identity())

    def identity(self) -> dict[str, Any]:
        """Which component it is, its settings, and the source of the package that it comes from."""
        return {
            "name": self.component.name,
            "config": dataclasses.asdict(self.config),
            "target": self.component.target,
            "code": package_digest(self.component.target.partition(":")[0].partition(".")[0]),
        }


def select(kind: str, name: str, options: Mapping[str, Any], *, where: str) -> Selected:
    """A component by its name, with these options and its defaults: how one component is made of others. `kind` is the config
    group (`reward`), `where` the key under which the user finds the options, for errors.

    Raises UserError for an unknown name, kind or option, and for a value that its config refuses."""
    known = {k.value: k for k in Kind}
    if kind not in known:
        raise unknown_name("kind of component", kind, known)
    component = registry().get(known[kind], name)
    return Selected(component, name, instance(where, component.config, options))


def instance(where: str, schema: type, values: Mapping[str, Any]) -> Any:
    """A config from the values that stand under the key `where`, with its defaults."""
    known = [f.name for f in fields(schema)]
    if odd := [str(key) for key in values if key not in known]:
        raise unknown_name("key", odd[0], known, where=where)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values)))
    except (OmegaConfBaseException, UserError) as error:  # a config may refuse its values when it is built
        text = one_line(str(error))
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from error


def one_line(text: str) -> str:
    """OmegaConf's many-line messages in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("reference_type", "object_type", "Set the environment"))]
    return "; ".join(kept)


def digest(*parts: Any) -> str:
    """24 hexadecimal digits of plain values."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:24]


@functools.cache
def package_digest(package: str) -> str:
    """A digest of a package's Python files: a version number does not change when somebody edits a plugin."""
    spec = importlib.util.find_spec(package)
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    if spec and spec.origin and not roots:
        return source_digest([(Path(spec.origin).name, Path(spec.origin))])
    return source_digest(
        (path.relative_to(root).as_posix(), path) for root in roots for path in sorted(root.rglob("*.py"))
    )


def source_digest(files: Iterable[tuple[str, Path]]) -> str:
    """24 hexadecimal digits of files, by name and content."""
    found = hashlib.sha256()
    for name, path in files:
        found.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:24]
