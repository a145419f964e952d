"""Hydra ends here: schemas and presets in, a typed RunConfig out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import alignbench
from alignbench import distributed
from alignbench.app import annotators, price, stages, sweeps, tuning
from alignbench.app.config import COMPONENT, JUDGE, SLOTS, RunConfig, Settings
from alignbench.app.overrides import expanded, keep_former, of_jobs, present_name, settle
from alignbench.app.ready import check_ready, check_tuned
from alignbench.app.refusals import explain, is_complaint, refuse_missing
from alignbench.app.telling import Verbosity
from alignbench.deprecation import former_names
from alignbench.errors import AlignbenchError, UserError, unknown_name
from alignbench.paths import user_path
from alignbench.plugins import Component, Kind, Registry, registry
from alignbench.records import Consumes
from alignbench.results.disk.environment import config_hash
from alignbench.selection import Selected, instance
from alignbench.untrusted import told

Task = Callable[[RunConfig], None]
FULL_ERRORS = "HYDRA_FULL_ERROR"


_COMPOSING = threading.Lock()
"""Hydra's state is global: a server composes one configuration at a time, whichever of its threads asks."""


def conf_dir() -> str:
    """The folder of YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(alignbench.__file__).parent
    inside = package / "conf"
    return str(inside if inside.is_dir() else package.parent / "conf")


class PresetPath(SearchPathPlugin):
    """Adds the preset folders of plugins to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for package in registry().preset_packages:
            search_path.append(provider=package, path=f"pkg://{package}.conf")


def _by(value: object, table: Mapping[object, object]) -> object:
    """`${by:VALUE,{KEY: ..., KEY: ...}}` in YAML: a setting that follows another. What the table lacks gives its first entry."""
    return table.get(value, next(iter(table.values())))


OmegaConf.register_new_resolver("by", _by, replace=True)  # on import: workers of a sweep unpickle what is defined below


def register_configs() -> None:
    """Stores the schema of every registered component; called again it changes nothing."""
    _register(registry())


@functools.lru_cache(maxsize=1)
def _register(known: Registry) -> None:
    """Once for the registry that the store holds: making the schemas is a good part of a composition."""
    store = ConfigStore.instance()
    for kind in Kind:
        if kind.is_group:
            for component in known.of(kind):
                for name in (component.name, *former_names(component.config)):
                    store.store(group=kind.value, name=name, node=_node(component), provider=component.distribution)
    store.store(group=annotators.GROUP, name=annotators.AUTO, node=annotators.node(), provider="alignbench")
    settings = OmegaConf.structured(Settings)
    with open_dict(settings):
        for component in known.of(Kind.EVALUATION):
            settings.eval.options[component.name] = OmegaConf.structured(component.config)
            keep_former(settings.eval.options[component.name], component.config)
        stages.add_options(settings)
    store.store(name="settings", node=settings, provider="alignbench")
    Plugins.instance().register(PresetPath)


def _node(component: Component) -> DictConfig:
    node: DictConfig = OmegaConf.structured(component.config)
    for value in node.values():  # a dict that users fill is open: `reward.parts.length=0.1` needs no `+`
        if isinstance(value, DictConfig) and OmegaConf.get_type(value) is dict:
            OmegaConf.set_struct(value, False)
    with open_dict(node):
        node[COMPONENT] = component.name
    price.set_default(node, component)
    keep_former(node, component.config)
    return node


def typed(cfg: DictConfig, choices: Mapping[str, str]) -> RunConfig:
    """Checks everything once more (`+key=value` goes past Hydra's schema) and builds the RunConfig."""
    try:
        return _typed(cfg, choices)
    except OmegaConfBaseException as error:
        raise explain(error) from error


def _typed(cfg: DictConfig, choices: Mapping[str, str]) -> RunConfig:
    refuse_missing(cfg)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[assignment]
    settle(cfg)
    choices = annotators.follow_data(cfg, choices)
    slots = {slot: _selected(cfg, slot, kind, choices) for slot, kind in SLOTS.items()}
    for stage in ("sft", "pretrain"):
        _refuse_stage(stage, slots[stage])
    settings = _plain(cfg)
    known = [component.name for component in registry().of(Kind.EVALUATION)]
    if odd := [str(name) for name in settings.eval.options if name not in known]:
        raise unknown_name("evaluation", odd[0], known, where="eval.options")
    user_path(settings.cache_dir, "cache_dir")  # refused now, not when the first stage is kept
    if not settings.eval.families:
        raise UserError(
            "eval.families names no evaluation, so that nothing would be measured: choose eval=standard or quick."
        )
    evaluations = tuple(_evaluation(settings, name) for name in settings.eval.families)
    for key in ("tasks", "include_path"):
        value = getattr(settings.eval, key)
        if value and not any(value in vars(chosen.config).values() for chosen in evaluations):
            raise UserError(
                f"eval.{key}={value} is read by none of eval.families={settings.eval.families}: add the evaluation "
                "that asks them (`alignbench plugins` lists it)."
            )
    cfg.eval.options = {chosen.label: cfg.eval.options.get(chosen.label, {}) for chosen in evaluations}
    added = stages.selected(settings)
    stages.keep_chosen(cfg, added)
    start = slots["algo"] if slots["algo"].config.consumes.value == "demonstrations" else slots["sft"]
    shared = {key: cfg[key] for key in ("pretrain", "model", "data", "eval", "judge")} | {
        "sft": dataclasses.asdict(start.config),
        **stages.before_sft(added),
    }
    return RunConfig(
        seed=settings.seed,
        device=settings.device,
        results_dir=settings.results_dir,
        cache=settings.cache,
        cache_dir=settings.cache_dir,
        resume=settings.resume,
        **slots,
        judge=_selected(cfg, JUDGE, Kind.REWARD, choices) if cfg.get(JUDGE) else None,
        rankings=settings.rankings,
        eval=settings.eval,
        budget=settings.budget,
        evaluations=evaluations,
        stages=added,
        yaml=OmegaConf.to_yaml(cfg),
        hash=config_hash(OmegaConf.to_container(cfg)),  # type: ignore[arg-type]
        sft_hash=config_hash(OmegaConf.to_container(OmegaConf.create(shared))),  # type: ignore[arg-type]
        annotator_hash=config_hash({key: OmegaConf.to_container(cfg[key]) for key in ("annotator", "rankings")}),
        reward_hash=config_hash({"reward": OmegaConf.to_container(cfg.reward)}),
    )


def _refuse_stage(stage: str, chosen: Selected) -> None:
    """Of a stage that is given demonstrations."""
    consumes = chosen.config.consumes
    if consumes is not Consumes.DEMONSTRATIONS:
        algorithms: list[Any] = [(c.name, c.config) for c in registry().of(Kind.ALGORITHM)]
        known = [name for name, config in algorithms if config.consumes is Consumes.DEMONSTRATIONS]
        raise UserError(
            f"algo@{stage}={chosen.label} learns from {consumes.value}, and this stage gives demonstrations: choose "
            f"algo@{stage}={'|'.join(known)}."
        )


def _selected(cfg: DictConfig, slot: str, kind: Kind, choices: Mapping[str, str]) -> Selected:
    chosen = cfg.get(slot)
    group = slot if slot == kind.value else f"{kind.value}@{slot}"
    if not isinstance(chosen, DictConfig) or COMPONENT not in chosen:
        known = ", ".join(component.name for component in registry().of(kind))
        raise UserError(f"{slot}={chosen} chooses nothing: write {group}=<name>. Choices: {known}.")
    values = {str(key): value for key, value in OmegaConf.to_container(chosen).items()}  # type: ignore[union-attr]
    component = registry().get(kind, str(values.pop(COMPONENT)))
    label = present_name(kind, choices.get(group) or component.name)
    return Selected(component, label, instance(slot, component.config, values))


def _evaluation(settings: Settings, name: str) -> Selected:
    known = [component.name for component in registry().of(Kind.EVALUATION)]
    if name not in known:
        raise unknown_name("evaluation", name, known, where="eval.families")
    component, where = registry().get(Kind.EVALUATION, name), f"eval.options.{name}"
    options = settings.eval.options.get(name, {})
    if not isinstance(options, Mapping):
        raise UserError(f"{where} holds options by name, as {where}.limit=10: leave it out for the defaults.")
    return Selected(component, name, instance(where, component.config, options))


def _plain(cfg: DictConfig) -> Settings:
    keys = [f.name for f in dataclasses.fields(Settings)]
    if odd := [str(key) for key in cfg if key not in keys]:
        raise unknown_name("key", odd[0], keys)
    rest = OmegaConf.create({key: None if key in {*SLOTS, JUDGE} else value for key, value in cfg.items()})
    settings: Settings = instance("", Settings, rest)
    return settings


def load_config(overrides: Sequence[str]) -> RunConfig:
    """The RunConfig of a list of overrides, without running anything."""
    return _ready(*composed(overrides))


def _ready(cfg: DictConfig, choices: Mapping[str, str]) -> RunConfig:
    """As `typed`, of a run that is to begin."""
    config = typed(cfg, choices)
    check_ready(config)
    check_tuned(str(cfg.tune.metric))
    return config


def composed(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The configuration of a list of overrides, and what each of its groups was chosen as."""
    register_configs()
    try:
        with _COMPOSING, initialize_config_dir(conf_dir(), version_base="1.3", job_name="alignbench"):
            cfg = compose("config", expanded(overrides), return_hydra_config=True)
            choices = dict(cfg.hydra.runtime.choices)
            with open_dict(cfg):
                del cfg["hydra"]
    except Exception as error:
        if not is_complaint(error) or os.environ.get(FULL_ERRORS) == "1":
            raise
        raise explain(error, overrides) from error
    return cfg, choices


@dataclasses.dataclass
class Job:
    """What Hydra calls for each run: in this process, or as a copy in a launcher's worker.

    `sweep` is the one that it may be part of, as Hydra's callbacks found it; `home` the folder of the command line: relative paths mean
    the same in every worker."""

    task: Task
    sweep: sweeps.Sweep
    verbosity: Verbosity = Verbosity.NORMAL
    home: Path = dataclasses.field(default_factory=Path.cwd)
    process: int = dataclasses.field(default_factory=os.getpid)
    begun: bool = False
    error: AlignbenchError | None = None

    def __call__(self, cfg: DictConfig) -> float | None:
        self.begun = True
        register_configs()  # a launcher's worker has Hydra's store but not our registry
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            return self._in_sweep(cfg, HydraConfig.get())
        try:
            self.task(_ready(cfg, dict(HydraConfig.get().runtime.choices)))
        except AlignbenchError as error:
            self.error = error
        return None

    def _in_sweep(self, cfg: DictConfig, its: HydraConf) -> float | None:
        own_process, value = os.getpid() == self.process, None
        with contextlib.chdir(self.home):
            folder = Path(its.sweep.dir) / self.sweep.name
            with sweeps.reporting(folder, its.job.num, its.overrides.task, own_process=own_process) as reporter:
                if self.verbosity is not Verbosity.QUIET and distributed.is_main():
                    reports = sweeps.read_reports(folder)
                    print(told(self.sweep.heading(reporter.report, reports)), file=sys.stderr, flush=True)
                config = _ready(cfg, dict(its.runtime.choices))
                if metric := cfg.tune.metric:
                    tuning.check(config, metric, its.sweeper.get("direction"))
                    reporter.note(tuned=tuning.name(config))
                self.task(config)
                value = tuning.value(reporter.metrics, metric) if metric else None
        return value


def in_sweep() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def main(task: Task, arguments: Sequence[str], verbosity: Verbosity = Verbosity.NORMAL) -> None:
    """Runs `task` on the overrides of a command line: once, or once per job of a sweep."""
    register_configs()
    # Options first: argparse takes the overrides in one piece, and people write -m anywhere among them.
    arguments = sorted(
        of_jobs(expanded(arguments)), key=lambda argument: "=" in argument and not argument.startswith("-")
    )
    _parse(arguments)
    sweep = sweeps.Sweep()
    job, ended = Job(task, sweep, verbosity), None
    try:
        with sweeps.opening(sweep), _command_line(arguments):
            hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(job)()
    except BrokenPipeError:
        raise  # nobody reads any more: no fault of the request
    except (Exception, KeyboardInterrupt) as error:
        begun, full_errors = job.begun or sweep.reports(), os.environ.get(FULL_ERRORS) == "1"
        if (
            isinstance(error, Exception) and is_complaint(error) and not begun and not full_errors
        ):  # no fault inside a run
            raise explain(error, arguments) from error
        if not sweep.reports() or full_errors:
            raise
        ended = error
    if job.error:
        raise job.error
    if reports := sweep.reports():
        _close(sweep, reports, ended)


def _close(sweep: sweeps.Sweep, reports: Sequence[sweeps.Report], ended: BaseException | None) -> None:
    """The table of a sweep, and what went wrong in it: `ended` is what made the launcher or the sweeper give up."""
    if not distributed.is_main():  # of several processes that share each run
        return
    failed = sweeps.close(reports)
    if sweep.directory and any(report.tuned for report in reports):
        for path in tuning.write_results(sweep.directory, reports):
            print(f"The best settings are in {path}: compare with --config-dir={sweep.directory}")
    if isinstance(ended, KeyboardInterrupt):
        raise ended
    why = f" The sweep ended early: {sweeps.one_line(ended)}." if ended else ""
    if failed or ended:
        raise AlignbenchError(f"{failed} of {len(reports)} runs of the sweep failed.{why}")


@contextlib.contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv; and it raises, so that the message is ours to word, only where the environment says so."""
    argv, full_errors = sys.argv, os.environ.get(FULL_ERRORS)
    sys.argv, os.environ[FULL_ERRORS] = ["alignbench", *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.pop(FULL_ERRORS)
        if full_errors is not None:
            os.environ[FULL_ERRORS] = full_errors


def _parse(arguments: Sequence[str]) -> None:
    """Refuses an option that Hydra does not have, in one line: argparse would print its usage first."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see alignbench --help.")

    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(list(arguments))
