"""Which chat template a model is given, with its arguments and its day written into it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from alignbench import UserError, pretrained, unknown_name, user_path

_FOLDER = Path(__file__).parent / "named"
NAMED: Mapping[str, Sequence[str]] = {
    "plain": (),
    "alpaca": (),
    "zephyr": (),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama-2": (),
    "llama-3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
}
"""The templates that come along, with the control tokens that each needs in the vocabulary; every one needs an EOS token."""
_OF_EVERY_TEMPLATE = frozenset(("messages", "tools", "documents", "add_generation_prompt", "strftime_now"))
_CLOCK = "strftime_now"


def template_of(tokenizer: PreTrainedTokenizerBase, chosen: str) -> str:
    """The template that `model.chat_template` names: one of NAMED, one of several that the tokenizer has, a .jinja file, or,
    where it names none, the tokenizer's own. Raises UserError where there is none; reads no weights."""
    own = tokenizer.chat_template
    several: Mapping[str, str] = own if isinstance(own, dict) else {}
    if chosen in several:
        return several[chosen]
    if chosen in NAMED:
        return _named(tokenizer, chosen)
    if chosen and (path := user_path(chosen, "model.chat_template")).suffix == ".jinja":
        try:
            return path.read_text(encoding="utf-8-sig")  # what editors put before a text is none of it
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"model.chat_template={chosen} cannot be read: {pretrained.one_line(error)}. (A run keeps a copy beside its weights, "
                "as chat_template.jinja.)"
            ) from error
    if chosen:
        raise unknown_name("model.chat_template", chosen, [*NAMED, *several, "<a .jinja file>"])
    if isinstance(own, dict):
        if "default" in several:
            return several["default"]
        raise UserError(
            f"The tokenizer of {name_of(tokenizer)} has several chat templates and none is its default: choose one of them, "
            f"model.chat_template={'|'.join(sorted(several))}."
        )
    if not own:
        raise UserError(
            f"The tokenizer of {name_of(tokenizer)} has no chat template, as a base model's: {choices(tokenizer)}."
        )
    return str(own)


def choices(tokenizer: PreTrainedTokenizerBase) -> str:
    """What to do where a template is missing or wrong."""
    usable = [name for name in NAMED if not _missing(tokenizer, name)]
    return f"choose one, model.chat_template={'|'.join(usable)} or a .jinja file"


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.name_or_path or type(tokenizer).__name__)


def _missing(tokenizer: PreTrainedTokenizerBase, name: str) -> list[str]:
    return [token for token in NAMED[name] if token not in tokenizer.added_tokens_encoder]


def _named(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """One that comes along; where the tokenizer itself begins texts with BOS, so does the template (llama-2 has its own)."""
    if missing := _missing(tokenizer, name):
        raise UserError(
            f"model.chat_template={name} needs control tokens that the tokenizer of {name_of(tokenizer)} lacks "
            f"({', '.join(missing)}), and no embedding is added: {choices(tokenizer)}."
        )
    text = (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return "{{- bos_token }}\n" + text if begins and "bos_token" not in text else text


def fixed(template: str, arguments: Mapping[str, Any], day: datetime.datetime, *, name: str) -> str:
    """The template with its arguments and its day written into it: it gives the same text on any day, in any program, and what
    is saved with a checkpoint needs no settings beside it."""
    template = template.replace("\r\n", "\n").replace("\r", "\n")  # as it is read again from a file
    try:
        parsed = _compile_jinja_template(template).environment.parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"The chat template of {name} is no Jinja template: {error.message} (line {error.lineno})."
        ) from error
    except RecursionError as error:
        raise UserError(f"The chat template of {name} is nested too deeply to be read.") from error
    known = meta.find_undeclared_variables(parsed) - _OF_EVERY_TEMPLATE
    if odd := [argument for argument in arguments if argument not in known]:
        raise unknown_name("argument", odd[0], known, where="model.template_kwargs")
    lines = [f"{{% set {argument} = {_literal(value)} %}}" for argument, value in arguments.items()]
    if formats := _clock_formats(parsed, name):
        said = _literal({wanted: day.strftime(wanted) for wanted in formats})
        lines.append(f"{{% macro {_CLOCK}(format) %}}{{{{ {said}[format] }}}}{{% endmacro %}}")
    # Each on a line of its own: Jinja takes away that line's end, and what the template begins with stays as it is.
    return "".join(f"{line}\n" for line in lines) + template


def _clock_formats(parsed: nodes.Template, name: str) -> list[str]:
    """What the template asks today's date in."""
    if any(macro.name == _CLOCK for macro in parsed.find_all(nodes.Macro)):
        return []  # fixed already
    found, uses = [], [node for node in parsed.find_all(nodes.Name) if node.name == _CLOCK]
    asked = [test.node for test in parsed.find_all(nodes.Test) if test.name == "defined"]
    called = [call.node for call in parsed.find_all(nodes.Call)]
    if odd := [use for use in uses if not any(use is node for node in (*asked, *called))]:
        raise UserError(
            f"The chat template of {name} hands on {_CLOCK} (line {odd[0].lineno}), so that the date cannot be fixed: call it by "
            "its name in a template of your own, model.chat_template=<a .jinja file>."
        )
    for call in parsed.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == _CLOCK:
            if not (len(call.args) == 1 and isinstance(call.args[0], nodes.Const)):
                raise UserError(
                    f"The chat template of {name} writes the date in a form that it computes (line {call.lineno}), which cannot "
                    "be fixed: write that form into a template of your own, model.chat_template=<a .jinja file>."
                )
            found.append(str(call.args[0].value))
    return list(dict.fromkeys(found))


def _literal(value: Any) -> str:
    """A plain value as Jinja reads it: JSON, but for its null."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(str(key))}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
