"""Rows with references, and a verifier of them, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench_verify.config import VerifyConfig
from alignbench_verify.verifier import Answer, Verifier

from alignbench import DataSource, Message, Prompt, Reference, Split


def row(name: str = "row", *, text: str = "what is it?", subset: str = "", **reference: object) -> Prompt:
    known = Reference(**reference) if reference else None  # type: ignore[arg-type]
    return Prompt(name, (Message("user", text),), reference=known, subset=subset)


class Rows(DataSource):
    """Some prompts, for training and for evaluation alike."""

    def __init__(self, *prompts: Prompt) -> None:
        self._prompts = prompts

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return self._prompts


def verifier(*names: str, **settings: object) -> Verifier:
    return Verifier(VerifyConfig(**settings), names or ("auto",), where="reward=verify")  # type: ignore[arg-type]


def passes(check: Verifier, prompt: Prompt, *responses: str) -> list[bool]:
    return [all(found.values()) for found in check.passed([Answer(prompt, text, True) for text in responses])]


def fill(mib: int) -> bool:
    """Takes so much memory: asked of a worker."""
    return len(bytearray(mib << 20)) > 0
