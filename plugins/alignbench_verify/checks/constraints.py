"""IFEval's verifiable constraints (Zhou et al. 2023, arXiv 2311.07911), by the checkers that lm-eval ships. In a worker: they hold
regular expressions, and a language detector that takes long on long texts.

On import lm-eval looks for a sentence splitter of nltk's and would fetch it; sentences are counted by lm-eval's own
splitter by rules instead, and words by nltk's tokenizer, which needs no file when it does not split sentences first."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import langdetect
import nltk

from alignbench import UserError, unknown_name

with patch.object(nltk.data, "find", lambda *_, **__: None):
    from lm_eval.tasks.ifeval import instructions_registry, instructions_util, utils

# This module is imported by a worker alone: nothing else in its process uses lm-eval.
_words = functools.partial(nltk.word_tokenize, preserve_line=True)
instructions_util.nltk = SimpleNamespace(tokenize=nltk.tokenize, word_tokenize=_words)
instructions_util.count_sentences = lambda text: len(instructions_util.split_into_sentences(text))
langdetect.DetectorFactory.seed = 0  # it samples
langdetect.detect("it reads its languages once")  # now, so that no response is charged for it
KNOWN = instructions_registry.INSTRUCTION_DICT


def passes(response: str, prompt: str, constraints: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """The response follows all constraints (the paper's strict accuracy of a prompt)."""
    return bool(_followed(response, prompt, constraints).follow_all_instructions)


def inspect(prompt: str, constraints: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Raises UserError for a constraint that has no checker, or arguments that it does not take."""
    _followed("a", prompt, constraints)
    return True


def _followed(response: str, prompt: str, constraints: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    names, given = [name for name, _ in constraints], [dict(arguments) for _, arguments in constraints]
    if odd := [name for name in names if name not in KNOWN]:
        raise unknown_name("constraint", odd[0], KNOWN)
    for name, arguments in zip(names, given, strict=True):
        try:
            KNOWN[name](name).build_description(**{key: value for key, value in arguments.items() if value})
        except (TypeError, ValueError) as error:
            raise UserError(f"constraint {name} does not take {arguments}: {' '.join(str(error).split())}") from None
    asked = utils.InputExample(key=0, instruction_id_list=names, prompt=prompt, kwargs=given)
    return utils.test_instruction_following_strict(asked, response)
