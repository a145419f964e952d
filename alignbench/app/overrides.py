"""What people write: a home folder is expanded, an old name becomes the present one (see `deprecation`), and a value that Hydra's grammar
does not take is refused with the quotes that it needs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict

from alignbench.app.config import COMPONENT, JUDGE, SLOTS
from alignbench.deprecation import former_names, former_options, placeholder, present
from alignbench.errors import UserError
from alignbench.plugins import Kind, registry
from alignbench.selection import one_line

_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'\n")
_NO_TABLE = re.compile(
    r"Error merging override (.*)\n(?:Cannot assign \w+ to Dict|Cannot merge DictConfig with ListConfig)"
)
_HOME = re.compile(r"(^|[,(\[]\s*)(~[^,()\[\]]*)")
"""Where a value begins: that of an option, of a sweep (`a,b` or `choice(a,b)`) or of a list."""
_OF_A_SHELL = '$`\\"!'
"""What a shell reads inside double quotes."""


_CHOICE = re.compile(r"(?P<group>\w+)(@\w+)?=(?P<names>[\w,]+)")


def quoted(text: str) -> str:
    """As Hydra's grammar takes any text."""
    return str(QuotedString(text, Quote.single).with_quotes())


def expanded(overrides: Sequence[str]) -> list[str]:
    """With the home folder for `~`, which a shell leaves alone behind a `=` and Hydra's grammar refuses; and `algo=old` as `algo=new`, so that
    whatever follows the choice, as settings tuned for it, follows the new name."""
    return [_present(_expanded(override)) for override in overrides]


def _expanded(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or key.startswith("-") or value.startswith("{") or set(value) & {"'", '"'}:
        return override
    return f"{key}={_HOME.sub(lambda found: found[1] + os.path.expanduser(found[2]), value)}"


def unread(error: Exception, text: str) -> UserError | None:
    """Why an override cannot be read as it was written, and how it can; None for any other error. `text`: all that it says."""
    if table := _NO_TABLE.search(text):
        key = table[1].partition("=")[0]
        return UserError(f"{one_line(table[1])}: it takes values by their names, each as {key}.<name>=<value>.")
    if isinstance(error, OverrideParseException):
        override, why = (
            error.override,
            "cannot be read as it stands: a value with spaces, commas, =, ~, (, or any other sign",
        )
    elif found := _AMBIGUOUS.search(text):
        override, why = (
            found[1],
            "has commas, which part a list, as in [a,b], or with --multirun the values of a sweep; a text",
        )
    else:
        return None
    key, equals, value = override.partition("=")
    if not equals:
        return UserError(f"{one_line(override)}: write it as key=value, see alignbench --help.")
    return UserError(
        one_line(f"{override} {why} needs quotes, and those need quotes of the shell: {_for_shell(key, value)}")
    )


def _for_shell(key: str, value: str) -> str:
    """To be typed: Hydra's quotes inside those of a shell."""
    argument = f"{key}={quoted(value)}"
    return shlex.quote(argument) if set(argument) & set(_OF_A_SHELL) else f'"{argument}"'


# Sweeps


def of_jobs(arguments: Sequence[str]) -> list[str]:
    """The arguments of a sweep, in which an option of a part that the sweep chooses, as `algo.alpha=0` beside `algo=cpo,simpo`, is a list of one
    value. Hydra sets what is no list in the configuration that the sweep starts from too, where the default stands for that part and may
    have no such option."""
    known = [(argument, _parsed(argument)) for argument in arguments]
    swept = {one.package or one.key_or_group for _, one in known if one and one.is_sweep_override()}
    slots = {*SLOTS, JUDGE}
    chosen = slots if "experiment" in swept else slots & swept
    return [_of_one(text) if one and _in_part(one, chosen) else text for text, one in known]


def _parsed(argument: str) -> Override | None:
    """None for what Hydra's grammar does not take: Hydra says so."""
    try:
        return OverridesParser.create().parse_override(argument) if "=" in argument else None
    except HydraException:
        return None


def _in_part(override: Override, parts: Collection[str]) -> bool:
    part, dot, _ = override.key_or_group.partition(".")
    return bool(dot) and part in parts and override.type is not OverrideType.DEL and not override.is_sweep_override()


def _of_one(argument: str) -> str:
    key, _, value = argument.partition("=")
    found = f"{key}=choice({value})"
    return found if _means(found, argument) else argument


def _means(choice: str, argument: str) -> bool:
    """Whether the one job of this choice is given the value that `argument` has: Hydra takes quotes off what it chooses from."""
    given, wanted = _parsed(choice), _parsed(argument)
    if given is None or wanted is None:
        return False
    key, _, _ = choice.partition("=")
    jobs = [_parsed(f"{key}={text}") for text in given.sweep_string_iterator()]
    if len(jobs) != 1 or jobs[0] is None:
        return False
    value, right = jobs[0].value(), wanted.value()
    return type(value) is type(right) and value == right


# Old names


def keep_former(node: DictConfig, schema: type) -> None:
    """Old names of options in a schema: an override, a preset and a recorded run may still give them."""
    with open_dict(node):
        for old, renamed in former_options(schema).items():
            node[old] = placeholder(renamed.new)


def _present(override: str) -> str:
    groups = {kind.value: kind for kind in Kind if kind.is_group}
    if not (found := _CHOICE.fullmatch(override)) or found["group"] not in groups:
        return override
    names = [present_name(groups[found["group"]], name) for name in found["names"].split(",")]
    return f"{override.partition('=')[0]}={','.join(names)}"


def present_name(kind: Kind, name: str) -> str:
    """The component's name now; the name itself where it is a preset's, or nobody's."""
    if (kind, name) in registry().components:
        return name
    old = any(name in former_names(component.config) for component in registry().of(kind))
    return registry().get(kind, name).name if old else name


def settle(cfg: DictConfig) -> None:
    """Writes what was given under old names under the present ones, and takes the old ones away."""
    for slot, kind in {**SLOTS, JUDGE: Kind.REWARD}.items():
        node = cfg.get(slot)
        if isinstance(node, DictConfig) and (kind, node.get(COMPONENT)) in registry().components:
            cfg[slot] = _settled(node, registry().get(kind, str(node[COMPONENT])).config, slot)
    families = cfg.eval.get("families")
    if OmegaConf.is_list(families):
        cfg.eval.families = [present_name(Kind.EVALUATION, str(name)) for name in families]
    for component in registry().of(Kind.EVALUATION):
        node = (cfg.eval.get("options") or {}).get(component.name)
        if isinstance(node, DictConfig):
            cfg.eval.options[component.name] = _settled(node, component.config, f"eval.options.{component.name}")


def _settled(node: DictConfig, schema: type, where: str) -> Any:
    if not former_options(schema):
        return node
    values: Any = OmegaConf.to_container(node, resolve=False)
    return present(schema, values, where)
