"""IFEval (Zhou et al. 2023, arXiv 2311.07911) by lm-eval's own checkers, without a download.

On import they fetch a sentence splitter of nltk's. Here they are given the same splitter untrained, with the usual English
abbreviations, and a word tokenizer that needs no splitter; langdetect, which samples, gets a seed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import nltk
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

from alignbench_suite.tasks import PUBLIC
from alignbench_suite.tasks.files import Row, documents, own, public

ABBREVIATIONS = [
    "a.m",
    "p.m",
    "e.g",
    "i.e",
    "etc",
    "vs",
    "cf",
    "al",
    "approx",
    "dept",
    "est",
    "fig",
    "no",
    "vol",
    "inc",
    "ltd",
    "co",
    "corp",
    "jr",
    "sr",
    "st",
    "ave",
    "blvd",
    "mt",
    "mr",
    "mrs",
    "ms",
    "dr",
    "prof",
    "gen",
    "col",
    "lt",
    "sgt",
    "rep",
    "sen",
    "gov",
    "pres",
    "rev",
    "hon",
    "capt",
    "u.s",
    "u.k",
    "u.n",
    "ph.d",
    "b.a",
    "m.a",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sun",
]

LEVELS = {
    "ifeval_prompt_strict": "prompt_level_strict_acc",
    "ifeval_instruction_strict": "inst_level_strict_acc",
    "ifeval_prompt_loose": "prompt_level_loose_acc",
    "ifeval_instruction_loose": "inst_level_loose_acc",
}


def embedded(**_: object) -> dict[str, Any]:
    """The suite's own prompts, in IFEval's format."""
    return documents(map(document, own("instructions")))


def rows(*, path: str = "", **_: object) -> dict[str, Any]:
    return documents(map(document, public(PUBLIC["alignbench_ifeval"], path, _from_hub)))


def document(row: Row) -> Row:
    wanted = {"key", "prompt", "instruction_id_list", "kwargs"}
    return {"id": str(row["key"]), "cluster": str(row["key"]), **{key: row[key] for key in wanted}}


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    with offline():
        found = _checkers().process_results(doc, results)
    return {ours: found[theirs] for ours, theirs in LEVELS.items()}


def share_of_instructions(items: Iterable[Sequence[bool]]) -> float:
    flat = [item for items_of_one in items for item in items_of_one]
    return sum(flat) / len(flat)


@contextmanager
def offline() -> Iterator[None]:
    """lm-eval's checkers, asking nothing of nltk that must be fetched."""
    import langdetect

    util = _checkers().instructions_registry.instructions.instructions_util
    words = functools.partial(nltk.word_tokenize, preserve_line=True)
    with ExitStack() as stack:
        stack.enter_context(patch.object(util, "nltk", SimpleNamespace(tokenize=nltk.tokenize, word_tokenize=words)))
        stack.enter_context(patch.object(util, "_get_sentence_tokenizer", sentence_tokenizer))
        stack.enter_context(patch.object(langdetect.DetectorFactory, "seed", 0))
        yield


@functools.cache
def sentence_tokenizer() -> PunktSentenceTokenizer:
    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters)


@functools.cache
def _checkers() -> ModuleType:
    # On import lm-eval looks for the splitter, and downloads it where it is not there.
    with patch.object(nltk.data, "find", lambda *_, **__: None):
        from lm_eval.tasks.ifeval import utils
    return utils


def _from_hub() -> Iterable[Row]:
    from datasets import load_dataset

    return load_dataset("google/IFEval", split="train")
