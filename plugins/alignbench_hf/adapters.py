"""One frozen base and a LoRA adapter for each role: the one owner of which adapter is active and what is trained."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, load_peft_weights
from safetensors.torch import save_file
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from alignbench import POLICY, AlignbenchError, UserError, pretrained
from alignbench_hf.architecture.blocks import Blocks
from alignbench_hf.architecture.lora import lean
from alignbench_hf.architecture.targets import adapt, what_peft_sets_right
from alignbench_hf.architecture.trunk import Sharing
from alignbench_hf.export import load_again, notes, plain_model
from alignbench_hf.memory import FreedMemory
from alignbench_hf.quantization import evaluation_mode, merged
from alignbench_hf.roles import Model, Roles, require_same_weights, sharing_tensors

_OF_ADAPTER = (
    r"(?<=lora_A|lora_B|ding_A|ding_B)\.({})(?=\.|$)"  # in a parameter's name; of embeddings: lora_embedding_A
)


class AdapterRoles(Roles):
    """A LoRA adapter for each role on one base (Hu et al., arXiv 2106.09685), which may be quantised (arXiv 2305.14314).

    Silent traps of peft are closed here. Its `set_adapter` moves `requires_grad`, so that a graph built before the switch
    would get no gradient: here a role keeps its own flags, and one backward pass across roles is right. With gradient
    checkpointing, layers are computed again in the backward pass with whatever adapter is active then: here with that of
    their forward pass. The reference is an adapter of its own, a copy of the policy's start, not the bare base."""

    _ADAPTER_OF_POLICY = "default"  # the name under which peft saves and loads without a sub-folder

    def __init__(
        self,
        base: Model,
        config: LoraConfig,
        *,
        merge_while_sampling: bool = True,
        gradient_checkpointing: bool = False,
        base_name: str | None = None,
        passes: str = "eager",
    ) -> None:
        """`base_name`: what saved adapters call their base; None: the folder that it was loaded from."""
        base.requires_grad_(False)
        self._dtype: torch.dtype = base.dtype  # of what is not quantised, and computed in
        self._merges = merge_while_sampling
        self._peft = adapt(base, config, self._ADAPTER_OF_POLICY)
        config.base_model_name_or_path = base_name or config.base_model_name_or_path
        evaluation_mode(self._peft)
        self._layers = {n: m for n, m in self._peft.named_modules() if isinstance(m, LoraLayer)}
        for layer in self._layers.values():
            lean(layer)
        self._config = config
        self._active = POLICY
        self._freed_memory = FreedMemory()
        self._trainable = {POLICY}
        self.sharing = Sharing.of(base.base_model)
        self._blocks = Blocks(base, self._layers.values(), passes)
        self._checkpointed = gradient_checkpointing
        if gradient_checkpointing:
            self._forget_activations(base)

    @contextlib.contextmanager
    def sampling(self, role: str) -> Iterator[Model]:
        """Puts plain layers with the adapter merged in the adapted layers' places for the time being: a decoding step is too
        short for two more products a layer, and for unpacking four-bit weights. Nothing is written to the base itself:
        merging into bfloat16 and out again would drift, and merging into four bits rounds again."""
        model = self.use(role)
        try:
            if self._merges:
                with torch.no_grad():
                    for name, layer in self._outermost():
                        self._put(name, merged(layer, self._name(role), self._dtype))
            yield model
        finally:
            for name, layer in self._outermost():
                self._put(name, layer)

    def _outermost(self) -> Iterator[tuple[str, LoraLayer]]:
        """Where a layer holds several adapted tensors, as fused experts do, peft nests a wrapper for each."""
        return ((n, m) for n, m in self._layers.items() if n.rpartition(".")[0] not in self._layers)

    def _put(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self._peft.get_submodule(parent), child, module)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Adapters are kept in float32, since Adam's small steps would be lost in bfloat16; beside a bfloat16 base they
        are computed with in bfloat16. Without autocast peft computes them in float32, ten times slower on a CPU."""
        self._freed_memory.before_pass(trains=torch.is_grad_enabled())
        with torch.autocast(self._peft.device.type, self._dtype, enabled=self._dtype is not torch.float32):
            yield

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        with self.computing(), self._blocks.passing():
            yield

    @property
    def share_prompts(self) -> bool:
        # A layer that is computed again cannot fill a cache.
        return self.sharing.prompts and not (self._checkpointed and torch.is_grad_enabled())

    def use(self, role: str) -> Model:
        if role != self._active:
            # peft's set_adapter would also visit the flags of all parameters, tens of milliseconds a switch.
            for layer in self._layers.values():
                layer._active_adapter = [self._name(role)]
                if layer.active_adapters != [self._name(role)]:
                    raise AlignbenchError("This version of peft switches adapters in another way: see constraints.txt.")
            self._active = role
        return self._peft.get_base_model()

    def lend(self, role: str) -> Model:
        """A copy of all of this, so that it has an active adapter of its own."""
        return sharing_tensors(self, self._peft).use(role)

    def _forget_activations(self, base: Model) -> None:
        """Has the base's blocks forget their activations and compute them again, as the role of their forward pass.

        Not by transformers' own switch: it asks for blocks in training mode, in which some turn their dropout on."""
        blocks = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not blocks:
            raise UserError(
                f"model.gradient_checkpointing=true: {type(base).__name__} has no blocks that can be computed again."
            )
        for block in blocks:
            block.forward = functools.partial(self._forgetting, block.forward)

    def _forgetting(self, forward: Callable[..., Any], *args: Any, **rest: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **rest)
        role = self._active
        contexts = lambda: (contextlib.nullcontext(), _ActingAs(self, role))  # noqa: E731
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **rest)

    def add(self, role: str, init_from: str, *, trainable: bool) -> None:
        name = self._name(role)
        if name not in self._peft.peft_config:
            with what_peft_sets_right():
                self._peft.add_adapter(name, self._config)
            evaluation_mode(self._peft)
        state = self._state(init_from)
        set_peft_model_state_dict(self._peft, state, adapter_name=name)
        if trainable:
            self._trainable.add(role)
        self._restore()

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        own = re.compile(_OF_ADAPTER.format(re.escape(self._name(role))))
        return {own.sub("", n): p for n, p in self._peft.named_parameters() if own.search(n)}

    def save(self, directory: Path) -> Path:
        path = directory / "adapter"
        self.save_adapter(path)
        return path

    def save_adapter(self, path: Path) -> None:
        self._peft.save_pretrained(
            path,
            selected_adapters=[self._ADAPTER_OF_POLICY],
            save_embedding_layers=False,
            state_dict=self._adapters(),
        )

    def adapter(self, role: str) -> dict[str, torch.Tensor]:
        return self._state(role)

    def write_adapter(self, role: str, path: Path) -> None:
        path.mkdir()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self._state(role).items()}
        save_file(weights, path / SAFETENSORS_WEIGHTS_NAME)
        self._config.save_pretrained(str(path))

    def load(self, path: Path) -> None:
        pretrained.require_file(path / SAFETENSORS_WEIGHTS_NAME)  # peft would take a pickle instead, or ask the hub
        with pretrained.Checkpoint(path).reading():
            state = load_peft_weights(str(path), device="cpu")
            made_with = LoraConfig.from_pretrained(str(path)).lora_alpha  # no weight shows it
        require_same_weights(state, self._state(POLICY), f"The adapter in {path}")
        if made_with != self._config.lora_alpha:
            raise UserError(
                f"The adapter in {path} was made with model.lora_alpha={made_with:g}, not {self._config.lora_alpha:g}."
            )
        set_peft_model_state_dict(self._peft, state, adapter_name=self._ADAPTER_OF_POLICY)
        self._restore()

    def plain(self) -> Model:
        return plain_model(self.use(POLICY), self._name(POLICY), self._dtype)

    def with_adapter(self, path: Path) -> Model:
        base = load_again(self.use(POLICY), self._dtype)
        return evaluation_mode(PeftModel.from_pretrained(base, path))

    def notes(self, *, merged: bool) -> tuple[str, ...]:
        return notes(self.use(POLICY), self._dtype, str(self._config.base_model_name_or_path), merged=merged)

    def _state(self, role: str) -> dict[str, torch.Tensor]:
        """The adapter's tensors. Embeddings are the base's and frozen; left to itself, peft asks the hub about their size."""
        state: dict[str, torch.Tensor] = get_peft_model_state_dict(
            self._peft, state_dict=self._adapters(), adapter_name=self._name(role), save_embedding_layers=False
        )
        return state

    def _adapters(self) -> dict[str, torch.Tensor]:
        """Of all roles. To ask a divided model for its whole state would be for all processes at once, and the main one saves."""
        return {name: tensor.detach() for name, tensor in self._peft.named_parameters() if "lora_" in name}

    def _name(self, role: str) -> str:
        return self._ADAPTER_OF_POLICY if role == POLICY else role

    def _restore(self) -> None:
        """The active adapter and all flags, after peft has set them as it likes."""
        active, self._active = self._active, ""
        self.use(active)
        trained = re.compile(_OF_ADAPTER.format("|".join(re.escape(self._name(role)) for role in self._trainable)))
        for name, parameter in self._peft.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_(bool(trained.search(name)))


class _ActingAs:
    """Computes as a role, and then as the one before. Entered as often as a block is computed again: once for each loss that goes back
    through it."""

    def __init__(self, roles: AdapterRoles, role: str) -> None:
        self._roles, self._role = roles, role
        self._before: list[str] = []

    def __enter__(self) -> None:
        self._before.append(self._roles._active)
        self._roles.use(self._role)

    def __exit__(self, *_: object) -> None:
        self._roles.use(self._before.pop())
