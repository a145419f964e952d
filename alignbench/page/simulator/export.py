"""The simulator as one file: its samples, its style and its script inside, no server and no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alignbench.errors import UserError
from alignbench.results.disk.directory import file_errors, write_whole

PAGE = Path(__file__).parents[1]
MODULES = (
    "dom.js",
    *(f"simulator/{n}.js" for n in ("mathematics", "plot", "settings", "why", "terms", "answers", "view", "offline")),
)
"""In the order in which they need one another."""
STYLES = ("style.css", "simulator/simulator.css")
MOST_BYTES = 3_000_000


def export(data: dict[str, Any], path: Path) -> int:
    """Writes the file and returns its size in bytes."""
    if data["pool"] is None:
        raise UserError(
            f"The runs of {data['label']} have no reward, and no annotator tells what it wants: without a server there is nothing to "
            "simulate. Train one with a reward, as algo=ppo."
        )
    content = page(data).encode()
    if len(content) > MOST_BYTES:
        raise UserError(f"The file would have {len(content):,} bytes, more than {MOST_BYTES:,}: fewer runs take less.")
    with file_errors(path, "choose another place with --export"):
        write_whole(path, content)
    return len(content)


def page(data: dict[str, Any]) -> str:
    """The file's HTML."""
    style, script = "\n".join(_static(name) for name in STYLES), bundle()
    environment = Environment(loader=FileSystemLoader(PAGE / "templates"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("simulator_export.html").render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_json(data),
        label=data["label"],
        live=False,
        waiting="This page needs JavaScript.",
    )


def bundle() -> str:
    """The modules as one: what they say of one another is left out, since all names stand in one scope."""
    text = "\n".join(_static(name) for name in MODULES)
    text = re.sub(r"^import\s.*?;$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^export (?=(async )?(function|class|const)\b)", "", text, flags=re.MULTILINE)


def _static(name: str) -> str:
    return (PAGE / "static" / name).read_text(encoding="utf-8")


def _hash(content: str) -> Markup:
    return Markup(f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}")


def _json(value: Any) -> Markup:
    """Inside a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, allow_nan=False)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))
