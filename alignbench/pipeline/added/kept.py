"""Demonstrations as JSON: of prompts that the data has, and of others that a stage brings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignbench.contracts.stage import StageView
from alignbench.records import Constraint, Demonstration, Message, Opinion, Prompt, Reference


def known(view: StageView) -> dict[str, Prompt]:
    """Prompts that need no words: whoever reads has been given them too."""
    given = [*view.prompts, *(one.prompt for one in view.demonstrations)]
    return {prompt.id: prompt for prompt in given}


def as_json(demonstrations: Sequence[Demonstration], there: Mapping[str, Prompt]) -> bytes:
    """Prompts that are `there` by their ids, others whole, each once. Raises TypeError where the `info` of these holds what JSON does not."""
    prompts = {id(one.prompt): one.prompt for one in demonstrations}
    place = {key: i for i, key in enumerate(prompts)}
    parts = {
        "prompts": [prompt.id if there.get(prompt.id) == prompt else _plain(prompt) for prompt in prompts.values()],
        "responses": [[place[id(one.prompt)], one.response] for one in demonstrations],
    }
    return json.dumps(parts).encode()


def read(content: bytes, there: Mapping[str, Prompt]) -> tuple[Demonstration, ...]:
    """What `as_json` wrote."""
    parts = json.loads(content)
    prompts = [there[given] if isinstance(given, str) else _prompt(given) for given in parts["prompts"]]
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
