"""A stage after the algorithm: how often the trained policy says a word, in responses to training prompts."""

from __future__ import annotations

import json
import re

from alignbench import Sampling, Seeds, Stage, StageResult, StageView
from alignbench_example.config import SayConfig

RESPONSES = "responses.jsonl"


class Say(Stage):
    """Its responses are kept in the run's directory, as stages/say/responses.jsonl."""

    def __init__(self, config: SayConfig, *, seeds: Seeds) -> None:
        self.config, self.seeds = config, seeds

    def run(self, view: StageView) -> StageResult:
        asked = view.prompts[: self.config.prompts]
        samples = view.policy.generate(asked, Sampling(), rng=self.seeds.torch("sampling")).samples
        said = re.compile(rf"(?<!\w){re.escape(self.config.word)}(?!\w)", re.IGNORECASE)
        with (view.folder / RESPONSES).open("w", encoding="utf-8") as file:
            for prompt, text in zip(asked, samples.texts, strict=True):
                file.write(json.dumps({"prompt": prompt.text, "response": text}) + "\n")
        share = sum(bool(said.search(text)) for text in samples.texts) / len(samples)
        return StageResult({"share": share}, f"{share:.2f} of {len(samples)} responses say {self.config.word}")
