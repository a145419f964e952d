"""TruthfulQA (Lin et al. 2021, arXiv 2109.07958) as lm-eval asks and scores it; only where its rows come from is ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from alignbench_suite.tasks import PUBLIC
from alignbench_suite.tasks.files import Row, documents, public


class TruthfulQA(ConfigurableTask):
    """lm-eval's own task `metadata.theirs`, asked about our rows."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        file = Path(lm_eval.tasks.__file__).parent / "truthfulqa" / f"{config['metadata']['theirs']}.yaml"
        theirs = {key: value for key, value in load_yaml(file, resolve_func=True).items() if key != "tag"}
        ours = {key: value for key, value in config.items() if key != "class"}
        super().__init__(config={**theirs, **ours, "dataset_path": None, "validation_split": "test"})


def rows(*, path: str = "", **_: object) -> dict[str, Any]:
    found = public(PUBLIC["alignbench_truthfulqa_mc1"], path, from_hub)
    return documents({"id": row["question"], "question": row["question"]} | _choices(row) for row in found)


def from_hub() -> Iterable[Row]:
    from datasets import load_dataset

    return load_dataset("truthfulqa/truthful_qa", "multiple_choice", split="validation")


def targets(given: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Choices and labels, as the hub has them or as the published file does: {answer: label}."""
    if "choices" in given:
        return list(given["choices"]), list(given["labels"])
    return list(given), list(given.values())


def _choices(row: Row) -> dict[str, Any]:
    names = ("mc1_targets", "mc2_targets")
    return {name: dict(zip(("choices", "labels"), targets(row[name]), strict=True)) for name in names}
