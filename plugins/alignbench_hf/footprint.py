"""How much memory a policy takes: estimated from the shape of its model and what is asked of it, before anything is loaded.

Exact where it counts parameters (the model is built without storage); activations are those of a decoder as Llama's
(Touvron et al., arXiv 2302.13971), in rows as long as the policy's limits allow.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from transformers.pytorch_utils import Conv1D

from alignbench import POLICY, Does, Part, UserError, Work, functional, pretrained
from alignbench_hf.architecture.targets import adapt, excluded, targets
from alignbench_hf.architecture.trunk import LEAST_TOKENS, require_decoder, text_config
from alignbench_hf.base import attention, base_dtype
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.quantization import adapted_name
from alignbench_hf.roles import VALUE

if TYPE_CHECKING:
    from alignbench_hf.config import PolicyConfig, PretrainedConfig

FLOAT = 4  # bytes: adapters, heads, gradients, logits that are computed with
QUANTIZED = {"nf4": 0.5 + 1 / 64 + FLOAT / (64 * 256), "int8": 1.0}  # bytes a weight, scales of blocks included
COPIES_OF_LOGITS = 4  # the logits, divided by the temperature; their exponentials; their gradient
DRAW = 3 * FLOAT + 3 * 8  # bytes a logit while a token is drawn, in float64
PUBLISHED = Path(__file__).with_name("published_shapes.json")
HOLES = 0.7
"""Free room between what is in use, relative to the activations of all layers, kept or computed again: on a CPU, glibc's heap
does not give the room of what was freed within a pass to other tensors, aligned as torch wants them. Measured on
SmolLM2-135M in float32 (benchmarks/plan.py), not derived."""


@dataclass(frozen=True)
class Shape:
    """Of a model: `linear` counts the weights of its linear layers but the output layer, `rest` all other parameters,
    `largest` those of the largest of them, `adapted` the inputs and outputs of the adapted layers (an adapter has so many
    parameters for each rank)."""

    linear: int
    largest: int
    merged: int
    rest: int
    adapted: int
    layers_adapted: int
    layers: int
    hidden: int
    intermediate: int
    queries: int
    keys: int
    heads: int
    vocabulary: int


@dataclass(frozen=True)
class Held:
    """How a policy holds its model: bytes a weight of a linear layer, bytes of a number that is computed with, the rank of
    adapters (0: each role is a copy, trained whole)."""

    linear: float
    compute: int
    rank: int
    checkpointing: bool = False
    merges: bool = False
    shares_prompts: bool = False
    eager: bool = False

    def unpacked(self, shape: Shape) -> int:
        """bitsandbytes multiplies by whole weights of a layer, which it unpacks for the time being."""
        return shape.largest * self.compute if self.linear < self.compute else 0

    def merging(self, shape: Shape) -> int:
        """A layer's merged copy is summed in float32: of the adapter's product and, where they are of another type, of the
        weights and of the sum, which is there before the copy is made of it."""
        if not self.merges:
            return 0
        rounded = self.compute < FLOAT
        sums = FLOAT * (1 + (self.linear < self.compute) + rounded)
        return shape.largest * (sums - self.compute * rounded)


def plan_pretrained(config: PretrainedConfig, works: Sequence[Work], device: str) -> list[tuple[Part, ...]]:
    """The parts of each work for one base with adapters."""
    known = torch.device(device).type != "cuda" or torch.cuda.is_available()
    auto = base_dtype(config.dtype, torch.device(device)) if known or config.dtype != "auto" else torch.bfloat16
    shape, stored = pretrained_shape(config.path, config.revision, config.gguf_file, config.wheel, config.lora_targets)
    quantization = stored if config.quantization == "none" else config.quantization
    held = Held(
        QUANTIZED.get(quantization, auto.itemsize),
        auto.itemsize,
        config.lora_rank,
        checkpointing=config.gradient_checkpointing,
        merges=config.merges,
        shares_prompts=True,
        eager=attention(config.attention, torch.device(device)) == "eager",
    )
    return [parts(shape, held, config, work, device) for work in works]


@functools.cache
def pretrained_shape(path: str, revision: str, gguf_file: str, wheel: str, targets: str) -> tuple[Shape, str]:
    """The shape by config.json alone, and how the checkpoint itself is quantised (by bitsandbytes; none)."""
    try:
        folder: Path = resolve(path, revision=revision, gguf_file=gguf_file, wheel=wheel, weights=False)
        config = pretrained.Checkpoint(folder, "model.path").config()
    except UserError:
        if revision not in ("", "main") or gguf_file or (published := published_config(path)) is None:
            raise
        config = published
    require_decoder(config, path)
    stored = getattr(config, "quantization_config", None) or {}
    kind = "nf4" if stored.get("load_in_4bit") else "int8" if stored.get("load_in_8bit") else "none"
    return shape_of(config, targets), kind


def published_config(path: str) -> Any:
    """The configuration of a model of the presets as far as its shape goes, for where the hub is out of reach; None of any other."""
    known = json.loads(PUBLISHED.read_text(encoding="utf-8")).get(path)
    return AutoConfig.for_model(**known) if known else None


def shape_of(config: Any, wanted: str) -> Shape:
    """Parameters are counted on the model itself, adapters as peft makes them, all of it without storage."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        sizes = [
            module.weight.numel()
            for module in model.modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not model.get_output_embeddings()
        ]
        linear = sum(sizes)
        rest = sum(parameter.numel() for parameter in model.parameters()) - linear
        inputs = [
            m.weight.shape[isinstance(m, nn.Linear)] for m in model.modules() if isinstance(m, nn.Linear | Conv1D)
        ]
        outside = excluded(model, passes=False)
        lora = LoraConfig(r=1, target_modules=targets(model, wanted, outside), exclude_modules=outside)
        adapted = adapt(model, lora)
    text, layers = text_config(model), [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    heads = getattr(text, "num_attention_heads", None) or 1
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        linear=linear,
        largest=max(sizes, default=0),
        merged=sum(layer.get_base_layer().get_parameter(adapted_name(layer)).numel() for layer in layers),
        rest=rest,
        adapted=sum(parameter.numel() for name, parameter in adapted.named_parameters() if "lora_" in name),
        layers_adapted=len(layers),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or max(inputs),
        queries=heads * head,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * head,
        heads=heads,
        vocabulary=text.vocab_size,
    )


def plan_copies(config: PolicyConfig, model: LlamaConfig, works: Sequence[Work], device: str) -> list[tuple[Part, ...]]:
    """The parts of each work where each role is a model of its own, in float32."""
    shape = llama_shape(
        model.vocab_size,
        model.hidden_size,
        model.num_hidden_layers,
        model.num_attention_heads,
        model.intermediate_size,
    )
    return [parts(shape, Held(FLOAT, FLOAT, 0), config, work, device) for work in works]


@functools.cache
def llama_shape(vocabulary: int, hidden: int, layers: int, heads: int, intermediate: int) -> Shape:
    """Of a Llama as models from scratch are: as many keys as queries, the output layer tied to the embeddings."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=intermediate,
        tie_word_embeddings=True,
    )
    return shape_of(config, "all-linear")


def parts(shape: Shape, held: Held, config: PolicyConfig, work: Work, device: str) -> tuple[Part, ...]:
    """What is held at the peak of one work."""
    own = weights_of_role(shape, held)
    copies = [role for role in work.roles if not (role == VALUE and config.value_trunk == "shared")]
    optimized = sum(own for role in work.optimized if role in copies)
    head = 2 * shape.hidden + 3 if config.scalar_head == "evidence" else shape.hidden + 1
    optimized += sum(head for role in work.optimized if role != POLICY)
    base = int(shape.linear * held.linear) + shape.rest * held.compute
    common = [
        Part("weights", base if held.rank else FLOAT * own * len(copies)),
        Part("adapters", FLOAT * own * len(copies) if held.rank else 0),
        Part("optimiser", int(work.state_bytes * optimized)),
        Part("gradients", FLOAT * optimized),
        Part("last good weights", FLOAT * own if POLICY in work.optimized and work.does is Does.TRAIN else 0),
    ]
    return (*common, *PASSES[work.does](shape, held, config, work, device))


def weights_of_role(shape: Shape, held: Held) -> int:
    """Parameters that one role has for itself, less its head."""
    return held.rank * shape.adapted if held.rank else shape.linear + shape.rest


def _training(shape: Shape, held: Held, config: PolicyConfig, work: Work, device: str) -> list[Part]:
    shared = held.shares_prompts and not held.checkpointing
    tokens = work.rows * config.max_response_tokens + (work.prompts if shared else work.rows) * config.max_prompt_tokens
    layer = tokens * bytes_of_layer(shape, held, config)
    kept = shape.layers * (tokens * shape.hidden * held.compute if held.checkpointing else layer)
    kept += tokens * shape.hidden * FLOAT  # what the last norm reads
    reads_logits = POLICY in work.optimized or config.scalar_head == "evidence"
    logits = work.rows * config.max_response_tokens if reads_logits else 0
    holes = HOLES * shape.layers * layer if device == "cpu" else 0
    return [
        Part("activations", kept + layer),
        *_logits(shape, logits, device),
        Part("unpacked layer", held.unpacked(shape)),
        Part("holes in the heap", int(holes), certain=False),
    ]


def _scoring(shape: Shape, held: Held, config: PolicyConfig, work: Work, device: str) -> list[Part]:
    rows = min(work.rows, config.scoring_batch_size)
    tokens = rows * (config.max_prompt_tokens + config.max_response_tokens)
    return [
        Part("activations", tokens * bytes_of_layer(shape, held, config)),
        *_logits(shape, rows * config.max_response_tokens, device),
        Part("unpacked layer", held.unpacked(shape)),
    ]


def _sampling(shape: Shape, held: Held, config: PolicyConfig, work: Work, device: str) -> list[Part]:
    rows = min(work.rows, config.generation_batch_size)
    prompts = min(work.prompts, rows) if held.shares_prompts else rows
    cached = rows * (config.max_prompt_tokens + config.max_response_tokens)
    keys = cached * shape.keys * held.compute  # of one layer
    # A step that is compiled or captured goes on in a copy of the cache that the prompts were read into; to check that it may, both are
    # there until a token has been read.
    prefilled = 2 * shape.layers * rows * (config.max_prompt_tokens + 1) * shape.keys * held.compute
    decoding = [
        Part("KV cache", 2 * shape.layers * keys),
        Part("cache of fixed size", prefilled if keeps_in_place(config, device) else 0),
        Part("copy of a cache", keys),  # when a token is added, or finished rows leave: made anew, layer by layer
        Part("activations", prompts * config.max_prompt_tokens * bytes_of_layer(shape, held, config)),
        Part("logits", rows * shape.vocabulary * DRAW),
        Part("unpacked layer", 0 if held.merges else held.unpacked(shape)),
    ]
    before = held.merging(shape) - sum(part.size for part in decoding)  # it is over when decoding begins
    return [
        Part("merged copies", shape.merged * held.compute if held.merges else 0),
        *decoding,
        Part("merging", max(before, 0)),
    ]


def keeps_in_place(config: PolicyConfig, device: str) -> bool:
    """Whether decoding takes a cache of fixed size."""
    captures = (
        config.decode == "auto" and torch.device(device).type == "cuda" and config.max_response_tokens >= LEAST_TOKENS
    )
    mine = config.sampler == "loop" and not getattr(config, "shard", False)
    return mine and (captures or config.decode == "compiled")


PASSES = {Does.TRAIN: _training, Does.SCORE: _scoring, Does.SAMPLE: _sampling}


def _logits(shape: Shape, positions: int, device: str) -> list[Part]:
    chunk = max(functional.most_logits(torch.device(device).type) // shape.vocabulary, 1)
    return [Part("logits", COPIES_OF_LOGITS * FLOAT * min(positions, chunk) * shape.vocabulary)]


def bytes_of_layer(shape: Shape, held: Held, config: PolicyConfig) -> int:
    """What a layer keeps for the backward pass for each token: the residual stream twice, both norms' outputs, queries, keys
    and values (repeated for all heads where rows are padded), the attention's output and its mask, the gated MLP's gate,
    its activation, the other branch and their product, and what adapters read and give."""
    length = config.max_prompt_tokens + config.max_response_tokens
    kept = 2 * FLOAT * shape.hidden  # norms compute in float32
    inputs = 2 * shape.hidden
    if not held.rank:
        inputs += 2 * shape.hidden  # what the norms' own weights learn from
    kept += held.compute * (inputs + 4 * shape.queries + 4 * shape.intermediate + length)
    kept += held.compute * held.rank * shape.layers_adapted // shape.layers
    kept += FLOAT * (shape.heads + 2)
    if held.eager:
        kept += shape.heads * length * (FLOAT if held.compute == FLOAT else FLOAT + held.compute)
    return kept
