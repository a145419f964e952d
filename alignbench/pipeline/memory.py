"""What a run's stages ask of its model, the memory that this takes at its peak, and the refusal of what is over a limit of this process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.errors import UserError
from alignbench.optimizer_config import OfflineConfig, OptimizerConfig
from alignbench.plugins import Kind
from alignbench.records import POLICY, REFERENCE, Consumes
from alignbench.records.memory_plan import ADAMW_BYTES, Does, Part, Work
from alignbench.results.disk import environment
from alignbench.seeds import Seeds
from alignbench.selection import Selected

GIB = 2**30
PROCESS = "process"
REWARD = "reward"
MANY = 1000  # evaluation prompts: enough to fill a model's batches


@dataclass(frozen=True)
class Stage:
    """What one stage holds at its peak."""

    name: str
    parts: tuple[Part, ...]

    @property
    def total(self) -> int:
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class Machine:
    """Where the run is to fit: `device` is cpu or cuda, `limit` its memory and `process` what it takes beside the model, bytes."""

    device: str
    limit: int
    process: int


def refuse_over_limit(config: RunConfig, tokenizer: Callable[[], Any]) -> None:
    """Refuses a run whose peak is over a limit of this process, before its model is loaded. What passes such a limit ends as the system
    sees fit: in a segmentation fault, or killed without a word. A GPU's memory is no matter of these limits, and says no by itself."""
    from alignbench.pipeline.preparation import pick_device

    limits = environment.memory_limits()
    if not limits or distributed.world_size() > 1 or pick_device(config.device).type != "cpu":
        return  # several processes may share a model, of which an estimate knows nothing
    try:
        stages = estimate(config, Machine("cpu", 0, 0), tokenizer)
    except Exception:  # the model cannot say, and what is wrong with it is told where it is built
        return

    def least(stage: Stage) -> int:
        return sum(part.size for part in stage.parts if part.certain)

    peak = max(stages, key=least)
    for limit in limits:
        if least(peak) > limit.left:
            raise UserError(
                f"The run does not fit: the model takes {least(peak) / GIB:.2f} GiB at its peak ({peak.name}), and "
                f"{limit.name} leaves {limit.left / GIB:.2f} of {limit.size / GIB:.2f} GiB. Raise it, or see `alignbench plan` "
                "for settings that take less."
            )


def estimate(config: RunConfig, machine: Machine, tokenizer: Callable[[], Any] | None = None) -> list[Stage]:
    """Every stage of the run at its peak. Raises UserError for a model whose config cannot say. `tokenizer`: the data source's."""
    model = config.model.config
    if not hasattr(model, "plan"):
        raise UserError(f"model={config.model.label} does not estimate its memory: its config has no `plan`.")
    works = workload(config)
    parts = model.plan(works, device=machine.device, tokenizer=tokenizer or tokenizer_of(config))
    process = Part(PROCESS, machine.process)
    return [Stage(work.stage, (*found, process)) for work, found in zip(works, parts, strict=True)]


def tokenizer_of(config: RunConfig) -> Callable[[], Any]:
    """Builds the data source the first time that somebody asks."""

    @functools.cache
    def own() -> Any:
        return config.data.build(seeds=Seeds(config.seed).child("data")).tokenizer()

    return own


def workload(config: RunConfig) -> list[Work]:
    """What each stage asks of the model, in the order of `run.pipeline`. Evaluation samples and scores as rollouts do."""
    from alignbench.pipeline.preparation import needs_rankings, needs_reward

    works = [_train(config.start, config.start.component.name, (POLICY,), (POLICY,))]
    if config.imitates:
        return works
    roles: tuple[str, ...] = (POLICY, REFERENCE)
    algo = config.algo.config
    if needs_rankings(config):
        responses = 2
        if config.annotator.load().samples_responses:
            responses = config.rankings.responses
            asked = config.rankings.prompts
            works.append(Work("rankings", Does.SAMPLE, asked * responses, asked, roles))
        if needs_reward(config):
            own = getattr(config.reward.config, "scalar_roles", ()) or (REWARD,)
            roles = (*roles, *own)
            if isinstance(config.reward.config, OptimizerConfig):
                works.append(_train(config.reward, REWARD, roles, own[:1], responses))
    if algo.consumes is Consumes.NOTHING:
        return [*works, Work("responses", Does.SAMPLE, MANY * config.eval.samples * algo.candidates, MANY, roles)]
    trained = (POLICY, *algo.scalar_roles)
    update = _train(config.algo, config.algo.component.name, (*roles, *algo.scalar_roles), trained)
    if isinstance(algo, OfflineConfig):
        scoring = dataclasses.replace(update, stage="scoring", does=Does.SCORE, rows=2 * algo.batch_size, optimized=())
        return [*works, *([scoring] if algo.uses_reference else []), update]
    batch, apart = algo.batch_size, algo.batch_size // getattr(algo, "samples_per_prompt", 1)
    rollouts = dataclasses.replace(update, stage="rollouts", does=Does.SAMPLE, rows=batch, prompts=apart)
    return [*works, rollouts, dataclasses.replace(rollouts, stage="scoring", does=Does.SCORE), update]


def _train(
    chosen: Selected, stage: str, roles: tuple[str, ...], optimized: tuple[str, ...], responses: int = 1
) -> Work:
    rows = chosen.config.rows_with_gradients
    optimizer = next((used.config for used in chosen.uses() if used.component.kind is Kind.OPTIMIZER), None)
    size = getattr(optimizer, "state_bytes", ADAMW_BYTES)
    return Work(stage, Does.TRAIN, rows * responses, rows, roles, optimized, size)
