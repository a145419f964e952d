"""PPO of TRL 1.12, whose process is given a batch of scored samples and the policy's weights, and gives back those that it trained.
docs/trl.md states the files of the exchange; `ppo_process.py` is the other side."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignbench import (
    POLICY,
    REFERENCE,
    AlignbenchError,
    ExactProblem,
    Policy,
    PolicyOptimizer,
    ScoredRollout,
    Seeds,
    UpdateReport,
    functional,
)
from alignbench_trl.config import PPOConfig
from alignbench_trl.environment import Process, python_of
from alignbench_trl.trainer import Plan, common, divisor, lent

SCRIPT = Path(__file__).with_name("ppo_process.py")
NAMES = {
    "objective/scores": "reward",
    "objective/kl": "kl",
    "objective/rlhf_reward": "objective",
    "loss/policy_avg": "policy_loss",
    "loss/value_avg": "value_loss",
    "policy/clipfrac_avg": "clip_fraction",
    "val/clipfrac_avg": "value_clip_fraction",
    "lr": "learning_rate",
}
"""What TRL logs, by the names that figures have here; the rest is kept as trl/<its name>. This KL is nats per response."""
LEFT_OUT = ("eps", "episode", "epoch")
UNCLIPPED = 1e6
"""A reach that no value leaves: TRL has no switch."""
OUTPUT_BIAS = "output_bias"


class PPO(PolicyOptimizer[ScoredRollout]):
    """trl.experimental.ppo.PPOTrainer of TRL 1.12: epochs x minibatches steps on each batch of rollouts."""

    def __init__(self, config: PPOConfig, *, policy: Policy, updates: int, seeds: Seeds) -> None:
        self._policy = policy
        self._model, reference = lent(policy, POLICY), lent(policy, REFERENCE)
        self._tensors = tensors(self._model)
        python_of(config.environment)
        self._steps = config.epochs * config.minibatches
        self._done = 0
        self._held = tempfile.TemporaryDirectory(prefix="alignbench-trl-")
        self._folder = Path(self._held.name)
        policy.save(self._folder / "start")
        self._write("reference", tensors(reference))
        if (bias := self._model.get_output_embeddings().bias) is not None and not bias.requires_grad:
            self._write(OUTPUT_BIAS, {"bias": bias})
        settings = {
            "base": self._model.name_or_path or str(write_base(self._model, self._folder / "base")),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "eos": policy.eos_token_ids[0],
            "seed": seeds.integer("trainer") % 2**32,
        }
        settings["arguments"] = trls(config, self._model, policy, updates, int(settings["seed"]))
        (self._folder / "settings.json").write_text(json.dumps(settings, indent=2))
        self._process = Process(config.environment, SCRIPT, self._folder, policy.device)

    @classmethod
    def optimum(cls, config: PPOConfig, problem: ExactProblem) -> Tensor | None:
        """pi_ref exp(r / kl_coef) / Z, as for algo=ppo. None without a KL, and where the objective is another."""
        if config.gamma != 1 or config.whiten_rewards or config.temperature != 1 or not config.kl_coef:
            return None
        return functional.kl_optimum(problem.reference, problem.rewards, config.kl_coef)

    @classmethod
    def exact_settings(cls) -> Mapping[str, object]:
        """One on-policy step per batch on unbiased advantages, as for algo=ppo."""
        return {"epochs": 1, "minibatches": 1, "gae_lambda": 1.0, "clip_value": 0.0}

    def update(self, batch: ScoredRollout) -> UpdateReport:
        functional.require_finite("the reward", batch.scores, hint="Check the reward source.")
        samples = batch.rollout.samples
        given = {**vars(samples.sequences), "scores": batch.scores}
        self._write("batch", {name: t.long() if name != "scores" else t for name, t in given.items()})
        self._write("weights", self._tensors)
        self._process.ask(f"batch {self._done}")
        self._done += 1
        take_over(self._tensors, self._read("trained"))
        mask = samples.sequences.response_mask
        own = {"length": mask.sum(1).float().mean(), "eos_rate": samples.finished.float().mean()}
        told = json.loads((self._folder / "figures.json").read_text())
        return UpdateReport({**figures(told), **{name: float(x) for name, x in own.items()}}, self._steps)

    def state_dict(self) -> dict[str, Any]:
        self._process.ask("state 0")
        return {"done": self._done, "tensors": self._read("state")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._done = state["done"]
        self._write("state", state["tensors"])
        self._process.ask(f"restore {self._done}")

    def _write(self, name: str, held: Mapping[str, Tensor]) -> None:
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in held.items()}
        save_file(plain, self._folder / f"{name}.safetensors")

    def _read(self, name: str) -> dict[str, Tensor]:
        return load_file(self._folder / f"{name}.safetensors")


def trls(config: PPOConfig, model: Any, policy: Policy, updates: int, seed: int) -> dict[str, Any]:
    """The arguments of TRL's PPOConfig. Without micro-batches its minibatches are optimizer steps; with them an epoch is one."""
    size = config.batch_size if config.minibatches > 1 else divisor(config.batch_size, config.micro_batch_size)
    plan = Plan(updates, size, config.batch_size // size)
    return common(config, model, plan, seed) | {
        "warmup_steps": config.warmup_updates,
        "total_episodes": updates * config.batch_size,
        "num_ppo_epochs": config.epochs,
        "num_mini_batches": config.minibatches,
        "local_rollout_forward_batch_size": divisor(config.batch_size, config.micro_batch_size),
        "num_sample_generations": 0,
        "response_length": policy.max_response_tokens,
        "temperature": config.temperature,
        "kl_coef": config.kl_coef,
        "cliprange": config.clip_ratio,
        "cliprange_value": config.clip_value or UNCLIPPED,
        "vf_coef": config.value_coef,
        "gamma": config.gamma,
        "lam": config.gae_lambda,
        "whiten_rewards": config.whiten_rewards,
    }


def tensors(model: Any) -> dict[str, Tensor]:
    """What belongs to the role that a lent model computes as: its adapter, by names without the adapter's own, or all weights."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    if not layers:
        return {name: p for name, p in model.named_parameters() if not is_output_bias(model, p)}
    (active,) = layers[0].active_adapters
    own = re.compile(
        rf"(?<=lora_A|lora_B|ding_A|ding_B)\.{re.escape(active)}(?=\.|$)"
    )  # of embeddings: lora_embedding_A
    return {own.sub("", name): p for name, p in model.named_parameters() if own.search(name)}


def write_base(model: Any, folder: Path) -> Path:
    """What adapters stand beside, of a model that was read from no checkpoint."""
    model.config.save_pretrained(folder)
    own = {n: p for n, p in model.named_parameters() if "lora_" not in n and not is_output_bias(model, p)}
    plain = {name.replace(".base_layer", ""): p.detach().cpu().contiguous() for name, p in own.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def is_output_bias(model: Any, parameter: Tensor) -> bool:
    """What a lent model keeps suppressed tokens away by: no weight of the policy."""
    return parameter is model.get_output_embeddings().bias and not parameter.requires_grad


def take_over(own: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Raises AlignbenchError, before anything is overwritten, unless these are the same weights."""
    if odd := sorted(set(own) ^ set(trained)):
        raise AlignbenchError(
            f"TRL's own process gave back other weights than it was given: {odd[0]} is one of them alone."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(trained[name])


def figures(told: Mapping[str, float]) -> dict[str, float]:
    """TRL says NaN of what an update did not have, as the variance of one ratio; what is named here must be a number."""
    kept = {name: float(x) for name, x in told.items() if name not in LEFT_OUT and (name in NAMES or math.isfinite(x))}
    return {NAMES.get(name, f"trl/{name}"): x for name, x in kept.items()}
