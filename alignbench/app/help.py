"""`alignbench --help`: what most people need on one screen; with topics or overrides the options of a part; `all` for everything."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import alignbench
from alignbench.app.compose import composed, conf_dir
from alignbench.app.options import Option, options
from alignbench.app.overrides import expanded
from alignbench.errors import UserError, unknown_name
from alignbench.plugins import Kind, Place, registry

FLAGS = ("--help", "-h")
ALL = "all"
WIDTH = 80
GROUPS = {kind.value: kind for kind in Kind if kind.is_group}
ALSO = ("eval", "experiment")
"""Groups of presets alone."""
DAILY = ("algo.kl_coef", "algo.updates", "algo.learning_rate", "algo.batch_size", "eval.every", "seed", "results_dir")
"""Options that most people change first."""
EXAMPLES = (
    ("alignbench algo=ppo seed=1", "one run: the whole pipeline, ending in a table"),
    ("alignbench -m algo=ppo,dpo seed=0,1", "a sweep: every combination, one table at its end"),
    ("alignbench compare", "the runs in results/runs against each other"),
)
MORE = (
    ("--help algo", "the choices of a group, and the options of the one chosen"),
    ("algo=dpo --help", "the options of what the command line names"),
    ("--help algo.kl_coef", "one option, or those that begin so"),
    ("--help all", "every group and every option (also --help-all)"),
    ("COMMAND --help", "the options of a command"),
    ("--quiet, --verbose", "how much a run says"),
    ("-sc install=bash", "completion for your shell: docs/sweeps.md"),
)


def text(arguments: Sequence[str]) -> str:
    """What `arguments`, one of which asks for help, want to know."""
    rest = [ALL if argument == "--help-all" else argument for argument in arguments if argument not in FLAGS]
    if odd := [argument for argument in rest if argument.startswith("-")]:
        raise UserError(f"{odd[0]}: --help takes topics and overrides, as in --help algo.kl_coef or algo=dpo --help.")
    overrides = expanded([argument for argument in rest if "=" in argument])
    topics = [argument for argument in rest if "=" not in argument]
    if not rest:
        return "\n".join(_screen())
    cfg, chosen = composed([override for override in overrides if "," not in override.partition("=")[2]])
    known = list(options(cfg))
    if ALL in topics:
        names = [*GROUPS, *ALSO]
        return "\n".join([*_screen(), "", *(line for name in names for line in [*_group(name), ""]), *_listed(known)])
    topics += [override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides]
    lines: list[str] = []
    for topic in dict.fromkeys(topics):
        found = [option for option in known if option.key == topic or option.key.startswith(f"{topic}.")]
        if not found and "." in topic:
            found = [option for option in known if option.key.startswith(topic)]
        if not found and topic not in (*GROUPS, *ALSO):
            raise unknown_name("topic of --help", topic, [ALL, *GROUPS, *ALSO, *(option.key for option in known)])
        if topic in (*GROUPS, *ALSO):
            lines += [*_group(topic, chosen.get(topic)), ""]
        lines += [*_listed(found), ""] if found else []
    return "\n".join(lines).rstrip()


def _screen() -> Iterator[str]:
    """The first page."""
    cfg, chosen = composed([])
    yield f"alignbench {alignbench.__version__}: a benchmark harness for alignment algorithms"
    yield ""
    yield from (f"  {command:<37}{what}" for command, what in EXAMPLES)
    yield ""
    yield "What a run is made of (--help NAME lists all choices)"
    for name in (*GROUPS, *ALSO):
        left, names = f"  {name}=".ljust(14), sorted(choices(name), key=lambda choice: choice != chosen.get(name))
        shown = textwrap.shorten(", ".join(names), WIDTH - len(left), placeholder=" ...")
        yield f"{left}{shown}"
    yield ""
    yield "What people change first"
    by_key = {option.key: option for option in options(cfg)}
    for option in (by_key[key] for key in DAILY if key in by_key):
        said = textwrap.shorten(option.said.partition(": ")[0].partition(";")[0], WIDTH - 36, placeholder=" ...")
        yield f"  {option.key}={option.value}".ljust(36) + said
    yield ""
    yield "Commands"
    for function in registry().functions_of(Place.COMMAND):
        yield f"  {function.name:<17}{function.summary}"
    yield ""
    yield "More"
    yield from (f"  {how:<21}{what}" for how, what in MORE)


def choices(group: str) -> dict[str, str]:
    """The names of a group, each with a line on it: components, then presets, which are YAML files."""
    kind = GROUPS.get(group)
    found = {component.name: component.summary for component in registry().of(kind)} if kind else {}
    for folder in _preset_folders():
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, _first_comment(path))
    return found


def _preset_folders() -> Iterator[Path]:
    from importlib.resources import files

    yield Path(conf_dir())
    for package in registry().preset_packages:
        yield Path(str(files(package))) / "conf"


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(
        (line.lstrip("# ").rstrip(":") for line in lines if line.startswith("# ") and "@package" not in line), ""
    )


def _group(name: str, chosen: str | None = None) -> Iterator[str]:
    yield f"{name}=<choice>"
    for choice, summary in choices(name).items():
        mark = "*" if choice == chosen else " "
        yield from textwrap.wrap(
            f"{choice:<24} {summary}", WIDTH, initial_indent=f"{mark} ", subsequent_indent=" " * 27
        )


def _listed(found: Sequence[Option]) -> Iterator[str]:
    """Each option with its value, what it takes and what it is."""
    for option in found:
        takes = f"   ({option.takes})" if option.takes else ""
        yield f"{option.key}={option.value}{takes}"
        yield from textwrap.wrap(option.said, WIDTH, initial_indent="    ", subsequent_indent="    ")
