"""Who shares what: the models behind the roles (policy, reference, value, reward).

`CopiedRoles` gives each role a full copy of a small model; `AdapterRoles` (adapters.py) gives each a LoRA adapter on one
base. Both hand out a causal language model that computes as that role; nothing else knows which it is.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from alignbench import POLICY, UserError, pretrained
from alignbench_hf.architecture.trunk import Sharing

VALUE = "value"  # the role that may share the policy's trunk

Model = Any  # a transformers causal language model; the library's own types change with every model


class Roles(ABC):
    """Named versions of one causal language model. `sharing`: what rows of this architecture can share."""

    sharing = Sharing()

    @abstractmethod
    def use(self, role: str) -> Model:
        """The model as `role`, in evaluation mode (dropout is off in every role: old and new log-probabilities agree)."""

    @abstractmethod
    def lend(self, role: str) -> Model:
        """The model as `role`, an object of its own over the same tensors: what is done to it the roles do not notice."""

    @contextlib.contextmanager
    def sampling(self, role: str) -> Iterator[Model]:
        """The model as `role`, prepared for many short forward passes without gradients."""
        yield self.use(role)

    def computing(self) -> contextlib.AbstractContextManager[object]:
        """The context that every forward pass runs in."""
        return contextlib.nullcontext()

    def passing(self) -> contextlib.AbstractContextManager[object]:
        """The same for a pass that trains or scores."""
        return self.computing()

    @property
    def share_prompts(self) -> bool:
        """Whether responses to one prompt share its computation. It pays for large models alone, and moves the last bits."""
        return False

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

    @abstractmethod
    def plain(self) -> Model:
        """The policy as one ordinary model to be saved: no adapter beside its layers, nothing quantised."""

    def save_adapter(self, path: Path) -> None:
        """Writes the policy's adapter alone into `path`. Raises UserError where there is none."""
        raise UserError("All weights of this model were trained, so that it has no adapter: use --merged.")

    def adapter(self, role: str) -> Mapping[str, Tensor]:
        """The tensors of a role's adapter, by the names that peft saves them under."""
        raise NotImplementedError

    def write_adapter(self, role: str, path: Path) -> None:
        """Writes the adapter of any role into the new folder `path`, as other programs load it."""
        raise NotImplementedError

    def with_adapter(self, path: Path) -> Model:
        """The base, loaded anew, with the adapter that `save_adapter` wrote: by transformers and peft alone."""
        raise NotImplementedError

    def notes(self, *, merged: bool) -> tuple[str, ...]:
        """What whoever uses the merged model, or the adapter, has to know."""
        return ()


class CopiedRoles(Roles):
    """A full copy of the model for each role: for models so small that this costs nothing."""

    def __init__(self, model: Model) -> None:
        self._models: dict[str, Model] = {POLICY: model.eval()}

    def use(self, role: str) -> Model:
        return self._models[role]

    def lend(self, role: str) -> Model:
        return sharing_tensors(self._models[role], self._models[role])

    def add(self, role: str, init_from: str, *, trainable: bool) -> None:
        self._models[role] = copy.deepcopy(self._models[init_from]).requires_grad_(trainable).eval()

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        return dict(self._models[role].named_parameters())

    def save(self, directory: Path) -> Path:
        path = directory / "model"
        self._models[POLICY].save_pretrained(path)
        return path

    def load(self, path: Path) -> None:
        loaded = pretrained.Checkpoint(path).model(AutoModelForCausalLM, device=torch.device("cpu")).state_dict()
        require_same_weights(loaded, self._models[POLICY].state_dict(), f"The model in {path}")
        self._models[POLICY].load_state_dict(loaded)

    def plain(self) -> Model:
        return self._models[POLICY]


T = TypeVar("T")


def sharing_tensors(thing: T, model: nn.Module) -> T:
    """A copy of `thing`, which holds `model`, with the very parameters and buffers of the model."""
    return copy.deepcopy(thing, {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())})


def require_same_weights(saved: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> None:
    """Raises UserError, before anything is overwritten, unless names and shapes agree: libraries load what fits."""
    for name in sorted({*saved, *own}):
        if name not in saved or name not in own:
            side = "it lacks" if name in own else "it has"
            raise UserError(f"{what} was made for another model: {side} {name}.")
        if saved[name].shape != own[name].shape:
            shapes = f"{list(saved[name].shape)}, not {list(own[name].shape)}"
            raise UserError(f"{what} was made for another model or rank: {name} is {shapes}.")
