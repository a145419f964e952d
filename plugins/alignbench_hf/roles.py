"""Who shares what: the models behind the roles (policy, reference, value, reward).

`CopiedRoles` gives each role a full copy of a small model; `AdapterRoles` gives each a LoRA adapter on one base. Both
hand out a causal language model that computes as that role; nothing outside this file knows which it is.
"""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import load_peft_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from alignbench import POLICY, UserError
from alignbench_hf.memory import return_freed_memory

Model = Any  # a transformers causal language model; the library's own types change with every model


class Roles(ABC):
    """Named versions of one causal language model."""

    @abstractmethod
    def use(self, role: str) -> Model:
        """The model as `role`, in evaluation mode (dropout is off in every role: old and new log-probabilities agree)."""

    @contextlib.contextmanager
    def sampling(self, role: str) -> Iterator[Model]:
        """The model as `role`, prepared for many short forward passes without gradients."""
        yield self.use(role)

    def computing(self) -> contextlib.AbstractContextManager[object]:
        """The context that every forward pass runs in."""
        return contextlib.nullcontext()

    @abstractmethod
    def add(self, role: str, init_from: str, *, trainable: bool) -> None:
        """Creates `role` with the present weights of `init_from`, or overwrites it."""

    @abstractmethod
    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """What belongs to this role alone, under names that do not depend on the role."""

    @abstractmethod
    def save(self, directory: Path) -> Path:
        """Writes the policy in its library's own format and returns the folder."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """Reads the policy back."""


class CopiedRoles(Roles):
    """A full copy of the model for each role: for models so small that this costs nothing."""

    def __init__(self, model: Model) -> None:
        self._models: dict[str, Model] = {POLICY: model.eval()}

    def use(self, role: str) -> Model:
        return self._models[role]

    def add(self, role: str, init_from: str, *, trainable: bool) -> None:
        self._models[role] = copy.deepcopy(self._models[init_from]).requires_grad_(trainable).eval()

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        return dict(self._models[role].named_parameters())

    def save(self, directory: Path) -> Path:
        path = directory / "model"
        self._models[POLICY].save_pretrained(path)
        return path

    def load(self, path: Path) -> None:
        loaded = AutoModelForCausalLM.from_pretrained(path, local_files_only=True).state_dict()
        require_same_weights(loaded, self._models[POLICY].state_dict(), f"The model in {path}")
        self._models[POLICY].load_state_dict(loaded)


class AdapterRoles(Roles):
    """One frozen base and a LoRA adapter for each role (Hu et al., arXiv 2106.09685).

    Two silent traps of peft are closed here. Switching adapters moves `requires_grad`, so that a graph built before
    the switch would get no gradient: each trainable role keeps its own flag. And the reference is an adapter of its
    own, a copy of the policy's start, not the bare base."""

    _ADAPTER_OF_POLICY = "default"  # the name under which peft saves and loads without a sub-folder

    def __init__(self, base: Model, config: LoraConfig) -> None:
        base.requires_grad_(False)
        self._dtype: torch.dtype = base.dtype
        self._peft: PeftModel = get_peft_model(base, config, adapter_name=self._ADAPTER_OF_POLICY).eval()
        self._config = config
        self._active = POLICY
        self._trainable = {POLICY}

    @contextlib.contextmanager
    def sampling(self, role: str) -> Iterator[Model]:
        """Merges the adapter into the base for the time being: a decoding step is too short for two more products a
        layer. Merging and unmerging in bfloat16 would drift, so the base's weights are put back bit for bit."""
        model = self.use(role)
        linears = [module.get_base_layer() for module in model.modules() if isinstance(module, LoraLayer)]
        originals = [linear.weight.detach().clone() for linear in linears]
        self._peft.merge_adapter([self._name(role)])
        try:
            yield model
        finally:
            self._peft.unmerge_adapter()
            with torch.no_grad():
                for linear, original in zip(linears, originals, strict=True):
                    linear.weight.copy_(original)

    def computing(self) -> contextlib.AbstractContextManager[object]:
        """Adapters are kept in float32, since Adam's small steps would be lost in bfloat16; beside a bfloat16 base they
        are computed with in bfloat16. Without autocast peft computes them in float32, ten times slower on a CPU."""
        return_freed_memory()  # what the pass before this one left
        if self._dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._peft.device.type, self._dtype)

    def use(self, role: str) -> Model:
        if role != self._active:
            self._peft.set_adapter(self._name(role))
            self._active = role
            self._restore_flags()
        return self._peft.get_base_model()

    def add(self, role: str, init_from: str, *, trainable: bool) -> None:
        name = self._name(role)
        if name not in self._peft.peft_config:
            self._peft.add_adapter(name, self._config)
            self._peft.eval()
        state = get_peft_model_state_dict(self._peft, adapter_name=self._name(init_from))
        set_peft_model_state_dict(self._peft, state, adapter_name=name)
        if trainable:
            self._trainable.add(role)
        self._restore_flags()

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        part = f".{self._name(role)}."
        return {n.replace(part, "."): p for n, p in self._peft.named_parameters() if "lora_" in n and part in n}

    def save(self, directory: Path) -> Path:
        path = directory / "adapter"
        self._peft.save_pretrained(path, selected_adapters=[self._ADAPTER_OF_POLICY])
        return path

    def load(self, path: Path) -> None:
        state = load_peft_weights(str(path), device="cpu")
        own = get_peft_model_state_dict(self._peft, adapter_name=self._ADAPTER_OF_POLICY)
        require_same_weights(state, own, f"The adapter in {path}")
        set_peft_model_state_dict(self._peft, state, adapter_name=self._ADAPTER_OF_POLICY)
        self._restore_flags()

    def _name(self, role: str) -> str:
        return self._ADAPTER_OF_POLICY if role == POLICY else role

    def _restore_flags(self) -> None:
        wanted = {f".{self._name(role)}." for role in self._trainable}
        for name, parameter in self._peft.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_(any(part in name for part in wanted))


def require_same_weights(saved: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> None:
    """Raises UserError, before anything is overwritten, unless names and shapes agree: libraries load what fits."""
    for name in sorted({*saved, *own}):
        if name not in saved or name not in own:
            side = "it lacks" if name in own else "it has"
            raise UserError(f"{what} was made for another model: {side} {name}.")
        if saved[name].shape != own[name].shape:
            shapes = f"{list(saved[name].shape)}, not {list(own[name].shape)}"
            raise UserError(f"{what} was made for another model or rank: {name} is {shapes}.")


def check_output_layer(model: Model, trunk: nn.Module, head: nn.Module) -> None:
    """Log-probabilities are computed as head(trunk(x)), in chunks: refuse a model whose logits are anything else."""
    device = next(model.parameters()).device
    ids = torch.arange(1, 5, device=device)[None]
    with torch.no_grad():
        whole = model(input_ids=ids).logits.float()
        parts = head(trunk(input_ids=ids).last_hidden_state).float()
    # The same products in the same order: next to no tolerance is needed, and a cap far above these logits still shows.
    if not torch.allclose(whole, parts, rtol=1e-3, atol=1e-3):
        raise UserError(
            f"{type(model).__name__} scales or caps its logits (largest difference {float((whole - parts).abs().max()):.3g}); "
            "models of this kind are not supported yet."
        )
