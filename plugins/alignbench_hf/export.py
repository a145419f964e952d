"""Models for other programs: one without adapters and quantisation, and how what was written is read again and compared."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from alignbench import AlignbenchError, Samples, pretrained
from alignbench_hf.chat.tokens import Chat
from alignbench_hf.checkpoint.gguf import is_converted
from alignbench_hf.quantization import dequantized, keep_trainable, merged

Model = Any
COMPARED_TOKENS = 24
"""Most tokens of a response that is compared."""
EXACT, ROUNDED = 1e-3, 0.2
"""How far an export's log-probabilities may be from the policy's on average, in nats: in float32, and in 16 bits, where the
adapter was computed beside the base before and is rounded together with it now."""


def plain_model(base: Model, adapter: str, dtype: torch.dtype) -> Model:
    """A model on the CPU that computes as `base` does with `adapter`, of ordinary layers in `dtype`.

    Quantised weights are dequantised before the adapter is added, and not rounded to a few bits again; adding it to the
    weights that they were rounded from would be another model: the adapter was trained beside the rounded ones."""
    config = copy.deepcopy(base.config)
    vars(config).pop("quantization_config", None)
    if isinstance(base.get_input_embeddings(), LoraLayer) or isinstance(base.get_output_embeddings(), LoraLayer):
        # An adapter belongs to one of the two alone, so that they no longer have the same weights.
        config.tie_word_embeddings = config.get_text_config(decoder=True).tie_word_embeddings = False
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(_plain_weights(base, adapter, dtype), assign=True)
    model.tie_weights()
    return model


def _plain_weights(base: Model, adapter: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Layer by layer to the CPU: a GPU need not hold a second model."""
    weights: dict[str, Tensor] = {}
    done: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if name.startswith(done):
            continue
        if isinstance(module, LoraLayer):
            with torch.no_grad():
                parts = merged(module, adapter, dtype).state_dict()
        elif (found := dequantized(module)) is not None:
            parts = {"weight": found.to(dtype)} | ({} if module.bias is None else {"bias": module.bias})
        else:
            continue
        weights |= {f"{name}.{part}": value.detach().cpu() for part, value in parts.items()}
        done += (f"{name}.",)
    return weights | {name: value.cpu() for name, value in base.state_dict().items() if not name.startswith(done)}


def save_plain(model: Model, chat: Chat, directory: Path) -> None:
    model.config.pad_token_id, model.config.eos_token_id = chat.tokenizer.pad_token_id, _eos(chat)
    model.save_pretrained(directory)


def _eos(chat: Chat) -> int | list[int]:
    """As transformers has it: a list where several tokens end a response."""
    return chat.ends[0] if len(chat.ends) == 1 else list(chat.ends)


def generation_config(chat: Chat, suppressed: Tensor) -> GenerationConfig:
    """Samples as a run does: from the policy itself, until what ends its turn. A chat model's own configuration would sharpen it."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        bos_token_id=chat.tokenizer.bos_token_id,
        eos_token_id=_eos(chat),
        pad_token_id=chat.tokenizer.pad_token_id,
        suppress_tokens=suppressed.tolist() or None,
    )


def tolerance(base: Model, loaded: Model) -> float:
    """Of the mean difference. On a GPU an eight-bit base rounds what its layers read, and those of other rows decide how
    (Dettmers et al., arXiv 2208.07339)."""
    quantization = getattr(base.config, "quantization_config", None)
    rounds = quantization is not None and quantization.load_in_8bit and base.device.type == "cuda"
    return EXACT if loaded.dtype is torch.float32 and not rounds else ROUNDED


def load_plain(directory: Path, device: torch.device) -> Model:
    return pretrained.Checkpoint(directory).model(AutoModelForCausalLM, device=device)


def load_again(base: Model, dtype: torch.dtype) -> Model:
    """Another copy of `base` from its own folder, quantised alike."""
    model = pretrained.Checkpoint(Path(base.name_or_path), "model.path").model(
        AutoModelForCausalLM,
        dtype=dtype,
        device=base.device,
        quantization=getattr(base.config, "quantization_config", None),
    )
    keep_trainable(model, base.device)
    return model


@torch.no_grad()
def differences(model: Model, directory: Path, samples: Samples, expected: Tensor) -> Tensor:
    """Between `expected` [B, R] and what `model` and the tokenizer and settings in `directory` give: one for each token."""
    tokenizer = pretrained.Checkpoint(directory).tokenizer()
    suppressed = GenerationConfig.from_pretrained(directory).suppress_tokens or []
    sequences, found = samples.sequences, []
    for row, prompt in enumerate(samples.prompts):
        chat = [{"role": message.role, "content": message.content} for message in prompt.messages]
        asked = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
        )
        if asked != sequences.prompt_ids[row][sequences.prompt_mask[row].bool()].tolist():
            raise AlignbenchError(
                f"Loaded again, the tokenizer reads the prompt {prompt.id!r} otherwise than the policy."
            )
        answer = sequences.response_ids[row][sequences.response_mask[row].bool()]
        ids = torch.cat([torch.tensor(asked, device=answer.device), answer])
        logits = model(input_ids=ids[None]).logits[0, len(asked) - 1 : -1].float()
        logits[:, suppressed] = -torch.inf
        given = logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]
        found.append((given - expected[row, : len(answer)]).abs())
    return torch.cat(found)


def notes(base: Model, dtype: torch.dtype, name: str, *, merged: bool) -> tuple[str, ...]:
    """What whoever uses an export of an adapter on `base`, which others know by `name`, has to know."""
    said = []
    quantization = getattr(base.config, "quantization_config", None)
    if quantization is not None and merged:
        said.append(
            f"The base was quantised ({_bits(quantization)}). It was dequantised, then the adapter was merged into it: the weights "
            f"are {str(dtype).removeprefix('torch.')} and not rounded again."
        )
    elif quantization is not None:
        said.append(
            f"The adapter was trained on a quantised base ({_bits(quantization)}): load the base in the same way. On weights that "
            "are not quantised it computes something else; --merged writes what was trained."
        )
    if is_converted(Path(base.name_or_path)) and not merged:
        said.append(
            f"The base was converted from a GGUF file here. {name} as others load it may have weights that were not rounded, on "
            "which the adapter computes something else; --merged writes what was trained."
        )
    return tuple(said)


def _bits(quantization: Any) -> str:
    return "int8" if quantization.load_in_8bit else str(quantization.bnb_4bit_quant_type)
