"""What no run could use, found when it is configured: before a model is loaded, and not when its stage begins.

A config's `__post_init__` refuses values that can never be; its `ready` refuses what is missing for a run here and now, as a file
that is not there. So a recorded run can still be read where its data has gone."""

from __future__ import annotations

import inspect
import re

from alignbench.app.config import JUDGE, SLOTS, RunConfig
from alignbench.app.price import check_price
from alignbench.bounds import shown
from alignbench.contracts import Annotator, DataSource, Evaluation, Policy, PolicyOptimizer, RewardSource, Tracker
from alignbench.contracts.format import Format
from alignbench.contracts.sampler import Sampler
from alignbench.contracts.stage import Stage
from alignbench.errors import UserError
from alignbench.paths import check_may_be_folder, user_path
from alignbench.plugins import Component, Kind
from alignbench.selection import Selected, refusal

CONTRACTS: dict[Kind, type] = {
    Kind.ALGORITHM: PolicyOptimizer,
    Kind.MODEL: Policy,
    Kind.DATA: DataSource,
    Kind.REWARD: RewardSource,
    Kind.ANNOTATOR: Annotator,
    Kind.EVALUATION: Evaluation,
    Kind.TRACKER: Tracker,
    Kind.SAMPLER: Sampler,
    Kind.STAGE: Stage,
    Kind.FORMAT: Format,
}
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_METRIC = re.compile(r"[^/|\s]+/[^/|\s]+")


def check_ready(config: RunConfig) -> None:
    """Raises UserError for the first thing that the run lacks."""
    if not _DEVICE.fullmatch(config.device):
        raise no_device(config.device)
    check_may_be_folder(config.results_dir, "results_dir")
    check_may_be_folder(config.cache_dir, "cache_dir")
    for names in config.eval.primary:
        _check_metrics("eval.primary", names.split("|"))
    for slot in (*SLOTS, JUDGE):
        if chosen := getattr(config, slot):
            check_selected(chosen, slot)
    for chosen in config.stages:
        check_selected(chosen, f"stage_options.{chosen.label}")
    check_price(config.algo, config.data)
    check_evaluations(config)


def no_device(name: str) -> UserError:
    return UserError(f"device={name!r} is not a device: choose auto, cpu, cuda or cuda:<number>.")


def check_evaluations(config: RunConfig) -> None:
    """Of what measures a checkpoint alone."""
    if (path := config.eval.path) and not user_path(path, "eval.path").is_dir():
        raise UserError(f"eval.path={shown(path)}: there is no such folder.")
    for chosen in config.evaluations:
        check_selected(chosen, f"eval.options.{chosen.label}")


def check_tuned(metric: str) -> None:
    """Of `tune.metric`; empty: nothing is tuned for."""
    if metric:
        _check_metrics("tune.metric", [metric])


def _check_metrics(option: str, names: list[str]) -> None:
    for name in names:
        if not _METRIC.fullmatch(name):
            raise UserError(f"{option}: {name!r} is no metric: write it as family/name, as helpfulness/gold_reward.")


def check_selected(chosen: Selected, where: str) -> None:
    check_target(chosen.component)
    try:
        chosen.check_ready()
    except UserError as error:
        raise refusal(error, where) from error


def check_target(component: Component) -> None:
    """Imports what builds it, whose stage may be hours away. Raises UserError for what cannot build a component of its kind."""
    target, contract = component.load(), CONTRACTS[component.kind]
    where = f"{component.kind.value}={component.name} of {component.distribution}: {component.target}"
    if not callable(target):
        raise UserError(f"{where} is no class.")
    if inspect.isclass(target):
        if not issubclass(target, contract):
            raise UserError(f"{where} does not derive from {contract.__name__}.")
        if missing := sorted(getattr(target, "__abstractmethods__", ())):
            raise UserError(f"{where} lacks {', '.join(missing)}, which every {contract.__name__} has.")
