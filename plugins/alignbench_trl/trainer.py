"""What a trainer of TRL is given in place of a data set, and how its own training loop is fed by a run."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from alignbench import Policy, Sequences, UserError
from alignbench_trl.config import SCHEDULES, TRLConfig
from alignbench_trl.lockstep import Take

Ids = list[list[int]]
Step = Sequence[Any]
"""The micro-batches of one optimizer step, as the trainer's own collator gives them."""


class Placeholder(Dataset):
    """A row that nobody trains on: a trainer wants a data set when it is made, and maps it to tokens."""

    def __init__(self) -> None:
        row = {"prompt": "", "label": True}
        super().__init__(Dataset.from_list([row]).data)

    def map(self, *_: Any, **__: Any) -> Placeholder:
        return self

    def filter(self, *_: Any, **__: Any) -> Placeholder:
        return self


class Fed:
    """Mixed into a trainer of TRL. Its loop, loss, optimizer, schedule and clipping are TRL's and transformers' own; it takes its
    batches from `take`, and what it logs of a step is kept in `told`."""

    take: Take[Sequence[Step]]

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.waiting: deque[Step] = deque()
        self.told: list[dict[str, Any]] = []
        self.restored: Mapping[str, Any] | None = None
        super().__init__(*args, **settings)

    def _send_telemetry(self) -> None:
        """TRL would report its use to its makers."""

    def get_train_dataloader(self) -> DataLoader[int]:
        """Its length alone is asked for: one pass has all steps."""
        return DataLoader(range(self.args.max_steps * self.args.gradient_accumulation_steps))  # type: ignore[attr-defined, arg-type]

    def get_batch_samples(self, *_: Any) -> tuple[list[Any], None]:
        if not self.waiting:
            self.waiting.extend(self.take())
        return list(self.waiting.popleft()), None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The last thing that is made before the first step: what an earlier process left is put in its place."""
        made = super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        if self.restored:
            self.optimizer.load_state_dict(self.restored["optimizer"])  # type: ignore[attr-defined]
            made.load_state_dict(self.restored["schedule"])
            self.state.global_step = self.restored["steps"]  # type: ignore[attr-defined]
        return made

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # type: ignore[misc]
        if "loss" in logs:  # the last line of a training is about its time
            self.told.append(logs)


def divisor(rows: int, most: int) -> int:
    """The largest divisor of `rows` that is at most `most`: micro-batches of a trainer are all of one size."""
    return max(size for size in range(1, min(most, rows) + 1) if rows % size == 0)


@dataclass(frozen=True)
class Plan:
    """How many steps a trainer makes: `each` optimizer steps for each of `updates` batches, each step of `pieces` micro-batches of `rows`."""

    updates: int
    rows: int
    pieces: int
    each: int = 1


def arguments(kind: Any, config: TRLConfig, model: Any, plan: Plan, *, folder: str, seed: int, **own: Any) -> Any:
    """The trainer's arguments: those that all have, and its `own`."""
    made = kind(
        output_dir=folder,
        max_steps=plan.updates * plan.each,
        warmup_steps=config.warmup_updates * plan.each,
        max_grad_norm=config.max_grad_norm,
        disable_dropout=True,
        remove_unused_columns=False,
        **common(config, model, plan, seed),
        **own,
    )
    made._n_gpu = min(made.n_gpu, 1)  # this process's own: transformers would copy the model to all that it sees
    return made


def common(config: TRLConfig, model: Any, plan: Plan, seed: int) -> dict[str, Any]:
    """Arguments that a trainer of any version has."""
    return {
        "per_device_train_batch_size": plan.rows,
        "gradient_accumulation_steps": plan.pieces,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": SCHEDULES[config.lr_schedule],
        "weight_decay": config.weight_decay,
        "adam_epsilon": config.adam_eps,
        "bf16": model.dtype is torch.bfloat16,
        "gradient_checkpointing": False,
        "seed": seed % 2**32,
        "use_cpu": model.device.type == "cpu",
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
    }


def lent(policy: Policy, role: str) -> Any:
    """The role as TRL takes it. Raises UserError where TRL cannot train it."""
    model: Any = policy.as_transformers(role)
    if getattr(model, "is_quantized", False):
        raise UserError("TRL would round the adapters of a quantised model to bfloat16: model.quantization=none.")
    model.generation_config.eos_token_id = list(policy.eos_token_ids)
    return model


def tokenizer(policy: Policy) -> Any:
    """A copy: a trainer sets what it wants otherwise."""
    return copy.deepcopy(policy.tokenizer)


def prompts(sequences: Sequences) -> Ids:
    """Token ids of each prompt, without padding."""
    lengths = sequences.prompt_mask.sum(1).tolist()
    return [row[len(row) - n :] for row, n in zip(sequences.prompt_ids.tolist(), lengths, strict=True)]


def responses(sequences: Sequences) -> Ids:
    """Token ids of each response, EOS included where it ended by itself."""
    lengths = sequences.response_mask.sum(1).tolist()
    return [row[:n] for row, n in zip(sequences.response_ids.tolist(), lengths, strict=True)]
