"""Helpfulness: by the truth where a data source knows it, and by the judge that the user chose (`reward@judge=`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alignbench import Direction, Evaluation, ExampleScore, Judge, MetricSpec, Subject
from alignbench_suite.config import HELPFULNESS_FURTHER as FURTHER
from alignbench_suite.config import HelpfulnessConfig
from alignbench_suite.factual_questions import accuracy, facts
from alignbench_suite.further import chosen
from alignbench_suite.helpfulness.win_rate import (
    Comparison,
    by_gold,
    by_judge,
    length_controlled_win_rate,
    pairs,
    tie_rate,
    win_rate,
)
from alignbench_suite.lm_eval_runner import CONSTRAINTS_SPECS, FAMILY_SPECS, ask_family, run_tasks
from alignbench_suite.scores import Groups, correct, gold_reward, per_prompt
from alignbench_suite.tasks.files import content


class Helpfulness(Evaluation):
    known = "alignbench_suite.known:helpfulness"

    def __init__(self, config: HelpfulnessConfig) -> None:
        self.config = config
        chosen(config.further, FURTHER, "helpfulness")

    def fingerprint(self) -> str:
        return content(self.config.path)

    def specs(self) -> Sequence[MetricSpec]:
        won = "share of pairs won against the SFT model"
        return (
            MetricSpec("helpfulness/gold_reward", Direction.HIGHER, "gold reward per response"),
            MetricSpec("helpfulness/accuracy", Direction.HIGHER, "share of responses", share=True),
            MetricSpec("helpfulness/win_rate", Direction.HIGHER, f"{won}, ties half", share=True),
            MetricSpec(
                "helpfulness/judge_win_rate", Direction.HIGHER, f"{won} before the judge, ties half", share=True
            ),
            MetricSpec(
                "helpfulness/judge_tie_rate", Direction.NEITHER, "share of pairs that the judge calls a tie", share=True
            ),
            MetricSpec("helpfulness/lc_win_rate", Direction.HIGHER, f"{won} if all responses were equally long"),
            MetricSpec("helpfulness/judge_reward", Direction.HIGHER, "the judge's score per response"),
            MetricSpec(
                "helpfulness/facts_accuracy", Direction.HIGHER, "share of plain facts answered right", share=True
            ),
            *FAMILY_SPECS["helpfulness"],
            *CONSTRAINTS_SPECS,
        )

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        groups, matched = subject.by_prompt(), pairs(subject.generations, subject.baseline)
        known = by_gold(matched)
        judged = by_judge(matched, subject.judge) if subject.judge else []
        return [
            *per_prompt("helpfulness/gold_reward", groups, gold_reward),
            *per_prompt("helpfulness/accuracy", groups, correct),
            *win_rate("helpfulness/win_rate", known),
            *win_rate("helpfulness/judge_win_rate", judged),
            *tie_rate("helpfulness/judge_tie_rate", judged),
            *length_controlled_win_rate("helpfulness/lc_win_rate", known or judged),
            *(judge_reward(groups, subject.judge, judged) if subject.judge else []),
            *(accuracy(subject, facts(limit=self.config.limit)) if subject.ordinary_text else []),
            *ask_family(subject, "helpfulness", limit=self.config.limit, path=self.config.path),
            *(self.further(subject) if subject.ordinary_text else []),
        ]

    def further(self, subject: Subject) -> list[ExampleScore]:
        asked = "constraints" in chosen(self.config.further, FURTHER, "helpfulness")
        return run_tasks(subject, ["alignbench_constraints"], limit=self.config.limit) if asked else []


def judge_reward(groups: Groups, judge: Judge, judged: Sequence[Comparison]) -> list[ExampleScore]:
    """The mean score of a held-out reward model. A judge that only compares gives no score, and there is no such metric then; one that
    answered nothing was out of reach."""
    asked = [generation for group in groups for generation in group]
    scores = judge.score(asked)
    compares = any(c.differ and not math.isnan(c.preference) for c in judged)
    if compares and all(map(math.isnan, scores)):
        return []
    by_response = {(g.prompt.id, g.index): score for g, score in zip(asked, scores, strict=True)}
    return per_prompt("helpfulness/judge_reward", groups, lambda g: by_response[g.prompt.id, g.index])
