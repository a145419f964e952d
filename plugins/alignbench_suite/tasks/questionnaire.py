"""A task whose documents each hold one question in several forms: with a hint and without, in one order and in the other.

The forms of a question stay together: it has one score, the difficulty of questions cancels, and a limit counts questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


class Questionnaire(ConfigurableTask):
    """A document has `forms`, each with the `text` of a user's message and the `choices` whose likelihoods are asked for.
    `process_results` is given them in that order and takes them apart with `best`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = {key: value for key, value in config.items() if key != "class"}
        super().__init__(config={"output_type": "loglikelihood", "num_fewshot": 0, **settings})

    def doc_to_text(self, doc: Mapping[str, Any], doc_to_text: Any = None) -> str:
        return str(doc["text"] if "text" in doc else doc["forms"][0]["text"])

    def doc_to_target(self, doc: Mapping[str, Any], doc_to_target: Any = None) -> str:
        return ""

    def fewshot_context(self, doc: Mapping[str, Any], num_fewshot: int, **settings: Any) -> list[str]:
        return [super(Questionnaire, self).fewshot_context(form, 0, **settings) for form in doc["forms"]]

    def construct_requests(
        self, doc: Any, ctx: Sequence[str], *, apply_chat_template: bool = False, metadata: Any, **kwargs: Any
    ) -> list[Instance]:
        space = "" if apply_chat_template else " "
        asked = [
            (context, f"{space}{choice}")
            for context, form in zip(ctx, doc["forms"], strict=True)
            for choice in form["choices"]
        ]
        return [
            Instance(request_type="loglikelihood", doc=doc, arguments=pair, idx=i, metadata=metadata)
            for i, pair in enumerate(asked)
        ]


def form(text: str, choices: Sequence[str]) -> dict[str, Any]:
    return {"text": text, "choices": list(choices)}


def best(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> list[int]:
    """The likeliest choice of each form."""
    chosen, start = [], 0
    for each in doc["forms"]:
        end = start + len(each["choices"])
        chosen.append(int(np.argmax([logprob for logprob, _ in results[start:end]])))
        start = end
    return chosen
