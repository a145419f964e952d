"""`alignbench new-plugin NAME --kind reward`: what is asked for, what cannot be, and what was written."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import alignbench
from alignbench.bounds import shown
from alignbench.errors import UserError, unknown_name
from alignbench.hookspecs import GROUP
from alignbench.paths import check_may_be_folder, given_path, user_path
from alignbench.plugins import Kind, registry
from alignbench.scaffold.kinds import TEMPLATES, Template, camel

DESCRIPTION = f"""Writes an installable plugin of one component, which passes `alignbench check` and its own tests as it is:
its own mathematics then takes the place of what is marked PAPER. Kinds: {", ".join(TEMPLATES)}.

  alignbench new-plugin my_algorithm
  alignbench new-plugin my_reward --kind reward --output ~/plugins/my_reward"""
_CONSTANTS = ("null", "true", "false", "nan", "inf")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 40
_NAMED_BY_TEMPLATES = {"Counter", "Mapping", "Path", "Sequence", "Callable", "Iterator", "Tensor", "Any"}
"""What templates import beside the door: a class of one of these names would stand in its place."""


def main(arguments: Sequence[str]) -> int:
    """Writes the package; returns the exit code."""
    parser = argparse.ArgumentParser(
        "alignbench new-plugin", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="of the component, as in algo=NAME")
    parser.add_argument(
        "--kind", default="algorithm:rollouts", metavar="KIND", help="what it is (default: %(default)s); see above"
    )
    parser.add_argument(
        "--output", type=given_path, metavar="DIR", help="the new folder (default: alignbench-NAME, with hyphens)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.kind not in TEMPLATES:
        raise unknown_name("kind of plugin", shown(chosen.kind), TEMPLATES)
    template = TEMPLATES[chosen.kind]
    check_name(chosen.name, template)
    folder = user_path(chosen.output or _distribution(chosen.name), "--output")
    check_folder(folder)
    files = write(chosen.name, template, folder)
    print(f"{folder}: a plugin with {_component(chosen.name, template.kind)}, {len(files)} files. Next:")
    for line in (
        f"cd {folder}",
        "pip install -e '.[test]'",
        f"alignbench check {_component(chosen.name, template.kind)}",
        "python -m pytest",
        f"python -m alignbench {template.run.format(name=chosen.name)}",
    ):
        print(f"  {line}")
    return 0


def check_name(name: str, template: Template) -> None:
    """Raises UserError for a name that Python, pip or the registry could not have."""
    where = f"The name {shown(name)!r}"
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise UserError(
            f"{where}: lower-case letters, digits and single underscores, a letter first, at most {_LONGEST}, as in my_reward."
        )
    if name in _CONSTANTS:
        raise UserError(f"{where} is a value of Hydra's command line, and no name there. Choose another.")
    taken = [other.name for other in registry().of(template.kind)]
    if name in taken:
        raise UserError(f"{where} is taken: {_component(name, template.kind)} is installed. Choose another.")
    package, points = _package(name), entry_points(group=GROUP).names
    if name in points or importlib.util.find_spec(package) is not None:
        raise UserError(f"{where} is taken: a plugin {name!r} or a package {package} is installed. Choose another.")
    target = template.target(name)
    known = {*alignbench.__all__, *_NAMED_BY_TEMPLATES}
    if clash := next((one for one in (target, f"{camel(name)}Config") if one in known or keyword.iskeyword(one)), None):
        raise UserError(f"{where} would name a class {clash}, which means something else already. Choose another.")


def check_folder(folder: Path) -> None:
    """Raises UserError where something is there already: nothing is written over."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{shown(folder)} is there already: name a new folder by --output.")
    check_may_be_folder(str(folder), "--output")


def write(name: str, template: Template, folder: Path) -> list[Path]:
    """Renders what all plugins have, and the kind's own part beside it. Returns the files."""
    try:
        import copier
    except ImportError:
        raise UserError(
            "alignbench new-plugin needs the package copier, which is not installed: pip install 'alignbench[scaffold]'."
        ) from None
    answers = answers_of(name, template)
    try:
        for part in ("common", template.folder):
            copier.run_copy(
                str(Path(__file__).with_name("template")),
                folder,
                data={**answers, "part": part},
                defaults=True,
                quiet=True,
            )
    except (OSError, ValueError) as error:  # a ValueError: a null byte
        raise UserError(f"--output: {shown(folder)} cannot be written: {shown(error)}.") from error
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def answers_of(name: str, template: Template) -> Mapping[str, str | bool]:
    """What the templates are told."""
    major, minor, *_ = alignbench.__version__.split(".")
    return {
        "name": name,
        "distribution": _distribution(name),
        "package": _package(name),
        "component": _component(name, template.kind),
        "hook": template.kind.hook,
        "module": template.module,
        "target": template.target(name),
        "config": f"{camel(name)}Config",
        "presets": template.presets,
        "run": template.run.format(name=name),
        "requires": f"alignbench>={major}.{minor},<{major}.{int(minor) + 1}",
    }


def _component(name: str, kind: Kind) -> str:
    return f"{kind.value}={name}"


def _distribution(name: str) -> str:
    return f"alignbench-{name.replace('_', '-')}"


def _package(name: str) -> str:
    return f"alignbench_{name}"
