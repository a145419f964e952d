"""Demonstrations as JSON, prompts whole: what a stage gives may be of prompts that the data does not have."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from alignbench.records import Constraint, Demonstration, Message, Opinion, Prompt, Reference


def as_json(demonstrations: Sequence[Demonstration]) -> bytes:
    """Each prompt once. Raises TypeError where a prompt's `info` holds what JSON does not."""
    prompts = {id(one.prompt): one.prompt for one in demonstrations}
    place = {key: i for i, key in enumerate(prompts)}
    parts = {
        "prompts": [_plain(prompt) for prompt in prompts.values()],
        "responses": [[place[id(one.prompt)], one.response] for one in demonstrations],
    }
    return json.dumps(parts).encode()


def read(content: bytes) -> tuple[Demonstration, ...]:
    """What `as_json` wrote."""
    parts = json.loads(content)
    prompts = [_prompt(given) for given in parts["prompts"]]
    return tuple(Demonstration(prompts[place], response) for place, response in parts["responses"])


def _plain(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "messages": [dataclasses.asdict(message) for message in prompt.messages],
        "opinion": prompt.opinion.value if prompt.opinion else None,
        "cluster": prompt.cluster,
        "info": dict(prompt.info),
        "reference": dataclasses.asdict(prompt.reference) if prompt.reference else None,
        "subset": prompt.subset,
    }


def _prompt(given: dict[str, Any]) -> Prompt:
    reference = given["reference"]
    if reference is not None:
        constraints = tuple(Constraint(**one) for one in reference["constraints"])
        reference = Reference(**reference | {"choices": tuple(reference["choices"]), "constraints": constraints})
    return Prompt(
        **given
        | {
            "messages": tuple(Message(**one) for one in given["messages"]),
            "opinion": Opinion(given["opinion"]) if given["opinion"] else None,
            "reference": reference,
        }
    )
