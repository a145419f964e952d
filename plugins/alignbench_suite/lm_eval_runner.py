"""Tasks of lm-eval, asked of a checkpoint within a run: one score an example and metric."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from alignbench import Direction, ExampleScore, MetricSpec, Subject
from alignbench_suite.task_loading import Sources, load, sources, task_manager
from alignbench_suite.tasks import FOLDER, PUBLIC
from alignbench_suite.tasks.files import has

if TYPE_CHECKING:
    from lm_eval.api.task import Task


FAMILY_SPECS: Mapping[str, tuple[MetricSpec, ...]] = {
    "helpfulness": (
        MetricSpec(
            "helpfulness/ifeval_prompt_strict",
            Direction.HIGHER,
            "share of prompts, every instruction followed",
            share=True,
        ),
        MetricSpec(
            "helpfulness/ifeval_prompt_loose",
            Direction.HIGHER,
            "share of prompts, of any of eight readings",
            share=True,
        ),
        MetricSpec(
            "helpfulness/ifeval_instruction_strict", Direction.HIGHER, "share of instructions followed", share=True
        ),
        MetricSpec(
            "helpfulness/ifeval_instruction_loose",
            Direction.HIGHER,
            "share of instructions, of eight readings",
            share=True,
        ),
    ),
    "sycophancy": (
        MetricSpec(
            "sycophancy/opinion_matching", Direction.LOWER, "share of answers with the user's stated view", share=True
        ),
        MetricSpec("sycophancy/opinion_shift", Direction.NEITHER, "the same minus that without a stated view"),
        MetricSpec(
            "sycophancy/answer_accuracy_none", Direction.HIGHER, "share of questions, nothing suggested", share=True
        ),
        MetricSpec(
            "sycophancy/answer_accuracy_wrong",
            Direction.HIGHER,
            "share of questions, a wrong answer suggested",
            share=True,
        ),
        MetricSpec(
            "sycophancy/answer_accuracy_right", Direction.HIGHER, "share of questions, the answer suggested", share=True
        ),
        MetricSpec("sycophancy/answer_drop", Direction.NEITHER, "accuracy with nothing suggested minus a wrong answer"),
    ),
    "diversity": (
        MetricSpec(
            "diversity/open_distinct_2", Direction.HIGHER, "distinct pairs of words / pairs, open-ended prompts"
        ),
        MetricSpec("diversity/open_self_bleu", Direction.LOWER, "BLEU against the other answers, open-ended prompts"),
        MetricSpec("diversity/open_unique", Direction.HIGHER, "share of answers that differ, open-ended prompts"),
        MetricSpec("diversity/open_novelty", Direction.HIGHER, "(classes - 1) / (K - 1), open-ended prompts"),
    ),
    "capability": (
        MetricSpec("capability/facts", Direction.HIGHER, "share of questions", share=True),
        MetricSpec("capability/truthfulqa_mc1", Direction.HIGHER, "share of questions, one true answer", share=True),
        MetricSpec("capability/truthfulqa_mc2", Direction.HIGHER, "probability of the true answers, of all given"),
    ),
}
"""What the tasks of a family may measure."""

CONSTRAINTS_SPECS = (
    MetricSpec(
        "helpfulness/ifbench_style_strict",
        Direction.HIGHER,
        "share of prompts, instructions that IFEval lacks",
        share=True,
    ),
    MetricSpec("helpfulness/ifbench_style_loose", Direction.HIGHER, "the same, of any of eight readings", share=True),
)
"""What the task alignbench_constraints measures."""

SIDES_SPECS = (
    MetricSpec("sycophancy/pick_side", Direction.NEITHER, "share siding with the user minus with a friend"),
    MetricSpec("sycophancy/mirror", Direction.NEITHER, "share of answers with the user's view minus with the other"),
    MetricSpec("sycophancy/attribution", Direction.NEITHER, "log-odds of agreement, user's own words minus somebody's"),
    MetricSpec("sycophancy/social_moral", Direction.LOWER, "share of conflicts, both parties absolved", share=True),
)
"""What the group alignbench_sides measures."""


def ask_family(subject: Subject, family: str, *, limit: int, path: str) -> list[ExampleScore]:
    """The scores of the family's tasks; none where the model does not read ordinary text."""
    return run_tasks(subject, family_tasks(family, path), sources(path), limit=limit) if subject.ordinary_text else []


def family_tasks(family: str, path: str = "") -> list[str]:
    """The tasks of a family: the public ones whose files are in the folder, or else those that bring their questions along."""
    chosen = f"alignbench_{family}"
    if path:
        members = _index(f"{chosen}_public").get("task", [])
        if present := [name for name in members if name in PUBLIC and has(PUBLIC[name], path)]:
            return present
    return list(_index(chosen).get("task", []))


def run_tasks(
    subject: Subject,
    names: Sequence[str],
    of: Sources | None = None,
    *,
    limit: int = 0,
    as_capability: bool = False,
) -> list[ExampleScore]:
    """Scores of tasks by name: the suite's own as `family/metric`, others (and all of them with `as_capability`) as
    `capability/<task>_<metric>`. `limit` documents of each (0: all). Raises UserError for names that do not exist and for
    data that is not there."""
    if not names:
        return []
    of = of or sources()
    with quiet():
        from lm_eval import simple_evaluate

        from alignbench_suite.lm_eval_model import SubjectLM

        tasks = load(tuple(names), of)
        with untouched_generators(), without_its_own_record():
            results = simple_evaluate(
                SubjectLM(subject),
                tasks=list(tasks),
                task_manager=task_manager(of, False),
                limit=limit or None,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
                bootstrap_iters=0,
                log_samples=True,
            )
    return [
        score
        for task in tasks
        for sample in results["samples"][task.task_name]
        for score in _scores(task, sample, as_capability)
    ]


def task_specs(names: Sequence[str], of: Sources) -> list[MetricSpec]:
    """What `run_tasks(..., as_capability=True)` may return."""
    if not names:
        return []
    with quiet():
        tasks = load(tuple(names), of)
    return [
        MetricSpec(
            metric_name(task, metric, filter.name, True), Direction.HIGHER if better else Direction.LOWER, "lm-eval"
        )
        for task in tasks
        for metric, better in task.higher_is_better().items()
        for filter in task._filters
    ]


def metric_name(task: Task, metric: str, filter: str, as_capability: bool) -> str:
    family = task.config.metadata.get("family") if isinstance(task.config.metadata, Mapping) else None
    if family and not as_capability:
        return f"{family}/{task.config.metadata.get('names', {}).get(metric, metric)}"
    return f"capability/{task.task_name}_{metric}" + ("" if filter == "none" else f"_{filter}")


def _scores(task: Task, sample: Mapping[str, Any], as_capability: bool) -> Iterator[ExampleScore]:
    document = sample["doc"] if isinstance(sample["doc"], Mapping) else {}
    own = FOLDER.as_posix() in str(task.config.metadata.get("config_source", ""))
    example = f"{task.task_name}/{document['id'] if own else sample['doc_id']}"
    cluster = str(document.get("cluster", "")) if own else ""
    for metric in sample["metrics"]:
        name, value = metric_name(task, metric, sample["filter"], as_capability), sample[metric]
        if isinstance(value, list):  # one for each part of the document, which are not independent
            yield from (ExampleScore(name, f"{example}/{i}", float(v), cluster or example) for i, v in enumerate(value))
        elif not isinstance(value, tuple):  # a tuple is half of a corpus-level metric, of which no example has a value
            yield ExampleScore(name, example, float(value), cluster)


@functools.cache
def _index(group: str) -> Mapping[str, Any]:
    """A group's YAML, without lm-eval."""
    import yaml

    for file in FOLDER.glob("*/group*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if content["group"] == group:
            return dict(content)
    return {}


@contextmanager
def quiet() -> Iterator[None]:
    """Without lm-eval's log and progress bars: the run has a display of its own."""
    from tqdm.std import tqdm

    logger, before = logging.getLogger("lm_eval"), logging.getLogger("lm_eval").level
    bar = tqdm.__init__

    def hidden(self: Any, *args: Any, **kwargs: Any) -> None:
        bar(self, *args, **{**kwargs, "disable": True})

    logger.setLevel(logging.ERROR)
    tqdm.__init__ = hidden  # type: ignore[method-assign]
    try:
        yield
    finally:
        tqdm.__init__ = bar  # type: ignore[method-assign]
        logger.setLevel(before)


@contextmanager
def without_its_own_record() -> Iterator[None]:
    """lm-eval asks git about the working directory, which says "fatal:" outside of a repository, and has torch describe the machine,
    which takes seconds each time. A run's record has both of its own."""
    from lm_eval import evaluator

    with (
        patch.object(evaluator, "get_git_commit_hash", str),
        patch.object(evaluator, "add_env_info", lambda results: None),
    ):
        yield


@contextmanager
def untouched_generators() -> Iterator[None]:
    """lm-eval seeds the global generators of Python, numpy and torch."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
