"""The checks that each kind of component is held to, and how to run them: as a command does, or as tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from alignbench.errors import unknown_name
from alignbench.plugins import Component, Kind, resolve
from alignbench.testing import algorithms, config, data, experience
from alignbench.testing.annotators import base as annotator
from alignbench.testing.annotators import probability
from alignbench.testing.checks import Check, NotApplicable, Result, declined, run_checks
from alignbench.testing.evaluations import base as evaluation
from alignbench.testing.evaluations import stated
from alignbench.testing.models import base as model
from alignbench.testing.models import limits, mixtures, roles, sampling
from alignbench.testing.rewards import base as reward
from alignbench.testing.rewards import fitting, values
from alignbench.testing.training import optimizers, samplers, schedules

CONFIG_CHECKS = tuple(config.check.checks)
DECLARATION_CHECKS = tuple(config.check_algorithm.checks)
ALGORITHM_CHECKS = (*DECLARATION_CHECKS, *experience.check.checks, *algorithms.CHECKS)
REWARD_CHECKS = (*reward.check.checks, *values.check.checks, *fitting.check.checks)
EVALUATION_CHECKS = (*evaluation.check.checks, *stated.check.checks)
ANNOTATOR_CHECKS = (*annotator.check.checks, *probability.check.checks)
MODEL_CHECKS = (
    *model.check.checks,
    *sampling.check.checks,
    *mixtures.check.checks,
    *limits.check.checks,
    *roles.check.checks,
)
DATA_CHECKS = tuple(data.check.checks)
OPTIMIZER_CHECKS = tuple(optimizers.check.checks)
SCHEDULE_CHECKS = tuple(schedules.check.checks)
SAMPLER_CHECKS = tuple(samplers.check.checks)
STILL_CHECKS = (*DECLARATION_CHECKS, *algorithms.STILL_CHECKS)


def checks_of(component: Component) -> tuple[Check, ...]:
    """Every check that is made of a component. Kinds that have none of their own are held to those of their config.

    Raises UserError where the component declines a check that is not made of it, or gives no reason."""
    found = _checks(component)
    names = [check.name for check in found]
    for name in declined(component):
        if name not in names:
            raise unknown_name("check", name, names, where=f"{component.config.__name__}.declines")
    return found


def _checks(component: Component) -> tuple[Check, ...]:
    if component.kind is Kind.ALGORITHM:
        return (*CONFIG_CHECKS, *(ALGORITHM_CHECKS if algorithms.supported(component) else STILL_CHECKS))
    own = {
        Kind.REWARD: REWARD_CHECKS,
        Kind.ANNOTATOR: ANNOTATOR_CHECKS,
        Kind.EVALUATION: EVALUATION_CHECKS,
        Kind.MODEL: MODEL_CHECKS,
        Kind.DATA: DATA_CHECKS,
        Kind.OPTIMIZER: OPTIMIZER_CHECKS,
        Kind.SCHEDULE: SCHEDULE_CHECKS,
        Kind.SAMPLER: SAMPLER_CHECKS,
    }
    return (*CONFIG_CHECKS, *own.get(component.kind, ()))


def check(component: Component | str, *, seed: int = 0) -> Iterator[Result]:
    """Checks a component, given by itself or by name ("ppo", or "reward=learned"), and yields each result as it comes."""
    found = resolve(component) if isinstance(component, str) else component
    return run_checks(checks_of(found), found, seed)


class Conformance:
    """Base of the test classes below: subclass one of them in a test file and give it a fixture `component`, the name
    of a registered component ("ppo", "reward=learned") or a Component. Each check is then a test of its own."""

    seed: ClassVar[int] = 0
    checks: ClassVar[Sequence[Check]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for each in cls.__dict__.get("checks", ()):
            setattr(cls, f"test_{each.name}", _as_test(each))


def _as_test(each: Check) -> Callable[[Conformance, Component | str], None]:
    def test(self: Conformance, component: Component | str) -> None:
        found = resolve(component) if isinstance(component, str) else component
        if each not in checks_of(found):
            raise NotApplicable(f"not made of {found.kind.value}={found.name}")
        if reason := declined(found).get(each.name):
            raise NotApplicable(f"declined: {reason}")
        each.run(found, self.seed)

    test.__doc__ = each.says
    return test


class AlgorithmConformance(Conformance):
    """Every check of an algorithm. Of one that trains nothing, those of its config and its optimum are made."""

    checks = (*CONFIG_CHECKS, *ALGORITHM_CHECKS)


class RewardConformance(Conformance):
    """Every check of a reward source."""

    checks = (*CONFIG_CHECKS, *REWARD_CHECKS)


class AnnotatorConformance(Conformance):
    """Every check of an annotator."""

    checks = (*CONFIG_CHECKS, *ANNOTATOR_CHECKS)


class EvaluationConformance(Conformance):
    """Every check of an evaluation."""

    checks = (*CONFIG_CHECKS, *EVALUATION_CHECKS)


class ModelConformance(Conformance):
    """Every check of a model. Of one that reads a checkpoint, give `with_defaults(component, {"path": ...})`."""

    checks = (*CONFIG_CHECKS, *MODEL_CHECKS)


class DataConformance(Conformance):
    """Every check of a data source. Of one that reads files, give `with_defaults(component, {"path": ...})`."""

    checks = (*CONFIG_CHECKS, *DATA_CHECKS)


class OptimizerConformance(Conformance):
    """Every check of an optimizer of weights."""

    checks = (*CONFIG_CHECKS, *OPTIMIZER_CHECKS)


class ScheduleConformance(Conformance):
    """Every check of a schedule of the learning rate."""

    checks = (*CONFIG_CHECKS, *SCHEDULE_CHECKS)


class SamplerConformance(Conformance):
    """Every check of a sampler."""

    checks = (*CONFIG_CHECKS, *SAMPLER_CHECKS)
