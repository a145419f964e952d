"""What Hydra and OmegaConf refuse, as one line of our own: which option, its value, and what is wanted or what to choose."""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignbench.app.config import JUDGE, Settings
from alignbench.app.options import sections
from alignbench.app.overrides import unread
from alignbench.bounds import printable, shown
from alignbench.errors import UserError, unknown_name
from alignbench.plugins import Kind, registry
from alignbench.selection import one_line, refusal, without_classes

EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray", "optuna": "optuna"}
"""Launchers and sweepers of Hydra's own plugins, and the extra that installs each."""
_REFUSING = (HydraException, OmegaConfBaseException)
_UNEXPECTED = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError)
"""What Hydra stumbles with over what it did not expect of a user."""
_ONE_CHOICE = "A config group takes the name of one choice, as in algo=ppo: see alignbench --help."


def is_complaint(error: BaseException) -> bool:
    """Whether this is how Hydra refuses a request, and no fault of our own or a plugin's code, which needs its traceback."""
    if isinstance(error, _REFUSING):
        return True
    if not isinstance(error, (ValueError, OSError, *_UNEXPECTED)):
        return False
    own = {"alignbench"} | {component.target.partition(".")[0] for component in registry().components.values()}
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in own:
            return False
        if package in ("hydra", "hydra_plugins", "omegaconf"):
            return True
    return False


def explain(error: Exception, overrides: Sequence[str] = ()) -> UserError:
    """Hydra's and OmegaConf's many-line messages as one line that lists the choices. `overrides`: all that were given."""
    text, cause = str(error) + (f"\n{error.__cause__}" if error.__cause__ else ""), error.__cause__ or error
    if told := unread(error, text):
        return UserError(printable(str(told)))
    if missing := re.search(r"Could not (?:find|load) '([^']+)/([^'/]*)'", text):
        return _unknown_choice(text, *missing.groups())
    if wrong := re.search(r"Key '([^']+)' (?:is )?not in '?(\w+)'?", text):
        return _unknown_key(text, wrong.group(1), wrong.group(2))
    if text.startswith(("Config group override must", "Error resolving interpolation '${model}-")):
        return UserError(_ONE_CHOICE)
    override = re.search(r"Error merging override (.*)", text)
    given = override.group(1) if override else ""
    if "does not support deletion" in text:
        return UserError(f"{given}: an option is not taken away, it is given another value.")
    if isinstance(cause, OmegaConfBaseException):
        return refusal(cause, given=given.lstrip("+"))
    if isinstance(cause, (ArithmeticError, RecursionError)):
        why = "nested too deep" if isinstance(cause, RecursionError) else "too large a number"
        return UserError(f"{_named(overrides)}: {why} to be read.")
    if not isinstance(error, HydraException) and not isinstance(error, (ValueError, OSError)):
        return UserError(f"{_named(overrides)}: cannot be read. {_ONE_CHOICE}")
    where = f"{_named(overrides)}: " if "digits" in text else ""  # Python's own words do not say of what
    return UserError(where + without_classes(one_line(text)))


def refuse_missing(cfg: DictConfig) -> None:
    """`key=???` would leave the default in place of what a preset says."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"{missing[0]}=??? is no value: give one, or leave {missing[0]} out.")


def _named(overrides: Sequence[str]) -> str:
    """The overrides that may be meant: those with a value that is more than a word, else all."""
    odd = [one for one in overrides if re.search(r"[\[\]{}$]", one)]
    return shown(" ".join(odd or overrides))


def _unknown_choice(text: str, group: str, name: str) -> UserError:
    if group in ("hydra/launcher", "hydra/sweeper") and name in EXTRAS:
        return UserError(f"{group}={name} is not installed: pip install 'alignbench[{EXTRAS[name]}]'.")
    options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
    found = [line.strip() for line in options.group(1).splitlines()] if options else []
    return unknown_name(group, name, found) if found else UserError(f"There is no {group}={name}.")


def _unknown_key(text: str, key: str, schema: str) -> UserError:
    full = re.search(r"full_key: (\S+)", text)
    where = full.group(1).rpartition(".")[0] if full else ""
    if where in (listed := {"eval.options": Kind.EVALUATION, "stage_options": Kind.STAGE}):
        kind = listed[where]
        return unknown_name(kind.value, key, [c.name for c in registry().of(kind)], where=where)
    if where == JUDGE and schema == "struct":
        return UserError(f"{where}.{key}: no judge is chosen; choose one with {Kind.REWARD.value}@{where}=<name>.")
    schemas = [c.config for c in registry().components.values()] + [inner for _, inner in sections(Settings)]
    chosen = next((s for s in schemas if s.__name__ == schema), None if where else Settings)
    if chosen is None:
        return UserError(f"Unknown key {key!r} in {where}.")
    return unknown_name("key", key, [field.name for field in dataclasses.fields(chosen)], where=where)
