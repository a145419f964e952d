"""What must hold of a tiny model of any architecture, each against transformers' and peft's own pass over each row alone."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from alignbench_hf import adapters, prompts
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.decoding import samplers as sampling
from alignbench_hf.policy import HFPolicy
from alignbench_hf.quantization import evaluation_mode, keep_trainable, quantization_config
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignbench import POLICY, Rollout, Sampling, Seeds, Sequences, UserError
from tests import tiny
from tests.hf import architectures

RANK, ALPHA = 4, 8.0
ROWS_A_PROMPT = 2
DRAWS = 64


@dataclass(frozen=True)
class Setting:
    """How a base is held."""

    dtype: str
    quantization: str

    @property
    def exact(self) -> bool:
        """Whether rounding is too small to change a token that is drawn."""
        return self.dtype == "float32"


SETTINGS = {
    "float32": Setting("float32", "none"),
    "bfloat16": Setting("bfloat16", "none"),
    "nf4": Setting("float32", "nf4"),
    "int8": Setting("float32", "int8"),
}
NEAR = 1e-4  # nats, relative norms
PROMPTS = tuple(tiny.prompt(text) for text in ("a b", "a b c d", "a b e", "a b h g f", "a b c", "a b g e"))


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="architectures-")


@functools.cache
def checkpoint(name: str) -> Path:
    return architectures.build(name, Path(_folder().name))


@dataclass(frozen=True)
class Outcome:
    """`yes`, or `refused: ` and why: as it is, and with activations that are computed again."""

    plain: str
    checkpointing: str


@functools.cache
def outcome(name: str, setting: str) -> Outcome:
    """Raises AssertionError for a model that is neither refused nor trained rightly."""
    try:
        policy = load(name, setting)
    except UserError as refusal:
        return Outcome(refused(refusal), refused(refusal))
    how, right = SETTINGS[setting], reference(name, setting, policy)
    with mock.patch.object(prompts, "WORTHWHILE", 1.0):  # all that can be shared is
        drawn = rollout(policy)
        scoring(policy, right, drawn.samples.sequences, how)
        samplers(policy, drawn, how)
        frequencies(policy, right, how)
        return Outcome("yes", checkpointing(policy, drawn.samples.sequences))


def refused(refusal: UserError) -> str:
    assert "\n" not in str(refusal)
    return f"refused: {str(refusal).replace(_folder().name, '')}"


def load(name: str, setting: str, **changes: object) -> HFPolicy:
    how = SETTINGS[setting]
    config = PretrainedConfig(
        path=str(checkpoint(name)),
        dtype=how.dtype,
        quantization=how.quantization,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        max_prompt_tokens=8,
        max_response_tokens=6,
        **changes,  # type: ignore[arg-type]
    )
    policy = build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))
    tiny.move(policy, scale=0.15)
    return policy


def reference(name: str, setting: str, policy: HFPolicy) -> PeftModel:
    """The same weights and adapter through the libraries' own doors."""
    how, dtype = SETTINGS[setting], getattr(torch, SETTINGS[setting].dtype)
    quantization = quantization_config(how.quantization, dtype, tiny.CPU)
    base = AutoModelForCausalLM.from_pretrained(
        checkpoint(name),
        dtype=dtype,
        attn_implementation="eager",
        **({"quantization_config": quantization, "device_map": {"": "cpu"}} if quantization else {}),
    )
    keep_trainable(base, tiny.CPU)
    base.requires_grad_(False)
    exclude = policy._roles._config.exclude_modules
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", exclude_modules=exclude, task_type="CAUSAL_LM"
    )
    model = evaluation_mode(get_peft_model(base, config))
    state = get_peft_model_state_dict(policy._roles._peft, save_embedding_layers=False)
    set_peft_model_state_dict(model, state)
    return model


def rollout(policy: HFPolicy) -> Rollout:
    """Prompts of different lengths with a common start; rows that end early, late and not at all."""
    rng = torch.Generator().manual_seed(0)
    return policy.generate(PROMPTS, Sampling(), n=ROWS_A_PROMPT, rng=rng)


def scoring(policy: HFPolicy, right: PeftModel, sequences: Sequences, how: Setting) -> None:
    """Log-probabilities and gradients of padded rows that share what they can, against those of rows alone. In bfloat16: about as
    far from what float32 makes of the same weights as the libraries' own pass is."""
    found = policy.logprobs(sequences).logprobs[sequences.response_mask.bool()]
    ours = found.detach(), gradients(policy, sequences)
    with torch.no_grad():
        again = policy.logprobs(sequences).logprobs[sequences.response_mask.bool()]
    assert distance(again, ours[0]) < (NEAR if how.exact else 0.05), "without gradients"
    exact = theirs = measured(right, sequences)
    if not how.exact:
        exact = measured(right.float(), sequences)
    # Rounding may send a token to another expert, which moves gradients more than log-probabilities.
    for what, rounding, *found_by in zip(
        ("log-probabilities", "gradients"), (0.01, 0.1), ours, theirs, exact, strict=True
    ):
        mine, other, true = found_by
        most = 2 * distance(other, true) + (NEAR if how.exact else rounding)
        assert distance(mine, true) < most, f"{what} are {distance(mine, true):.2g} apart, of at most {most:.2g}"


def checkpointing(policy: HFPolicy, sequences: Sequences) -> str:
    """The same gradients from activations that are computed again, by layers that then share nothing."""
    with mock.patch.object(policy._roles, "sharing", architectures.APART):
        right = gradients(policy, sequences)
        try:
            policy._roles._forget_activations(policy._roles.use(POLICY))
        except UserError as refusal:
            return refused(refusal)
        again: list[int] = []
        with mock.patch.object(adapters, "checkpoint", counting(adapters.checkpoint, again)):
            found = gradients(policy, sequences)
    assert again, "a block was computed again"
    assert distance(found, right) < NEAR, f"gradients with checkpointing are {distance(found, right):.2g} apart"
    return "yes"


def counting(function: Callable[..., object], calls: list[int]) -> Callable[..., object]:
    return lambda *args, **rest: (calls.append(1), function(*args, **rest))[1]


def measured(model: PeftModel, sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all responses, and their gradient by every adapter."""
    logprobs = torch.cat([alone(model, sequences, row) for row in range(len(sequences))])
    trained = [parameter for name, parameter in model.named_parameters() if "lora_" in name]
    slopes = torch.autograd.grad(logprobs.sum(), trained)
    assert all(bool(slope.any()) for slope in slopes), "every adapter is trained"
    return logprobs.detach(), torch.cat([slope.flatten() for slope in slopes])


def alone(model: PeftModel, sequences: Sequences, row: int) -> Tensor:
    """Log-probabilities of one response by the model's own forward, without padding or cache."""
    prompt = sequences.prompt_ids[row][sequences.prompt_mask[row].bool()]
    answer = sequences.response_ids[row][sequences.response_mask[row].bool()]
    logits = model(input_ids=torch.cat([prompt, answer])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(1, answer[:, None])[:, 0]


def gradients(policy: HFPolicy, sequences: Sequences) -> Tensor:
    total = policy.logprobs(sequences).logprobs.sum()
    return torch.cat([slope.flatten() for slope in torch.autograd.grad(total, policy.trainable())])


def distance(found: Tensor, right: Tensor) -> float:
    return float((found - right).norm() / right.norm())


def samplers(policy: HFPolicy, samples: Rollout, how: Setting) -> None:
    """Given the same chances, transformers' own `generate`, layers that are not merged, rows that leave the batch at once or
    never, and prompts that are not shared draw the same tokens; and the sampler says of them what scoring says."""
    sequences = samples.samples.sequences
    lengths = sequences.response_mask.sum(1)
    assert int(lengths.min()) < int(lengths.max()), "rows of different lengths should be seen"
    with torch.no_grad():
        scored = policy.logprobs(sequences).logprobs
    assert distance(samples.logprobs, scored) < (NEAR if how.exact else 0.1), "what the sampler says"
    if not how.exact:
        return
    for other in (
        mock.patch.object(policy._config, "sampler", "generate"),
        mock.patch.object(policy._roles, "_merges", False),
        mock.patch.object(sampling, "EVICT_BELOW", 1.1),
        mock.patch.object(sampling, "EVICT_BELOW", 0.0),
        mock.patch.object(policy._roles, "sharing", architectures.APART),
    ):
        with other:
            again = rollout(policy)
        assert torch.equal(again.samples.sequences.response_ids, sequences.response_ids), other.attribute
        assert distance(again.logprobs, samples.logprobs) < NEAR, other.attribute


def frequencies(policy: HFPolicy, right: PeftModel, how: Setting) -> None:
    """Chances that divide [0, 1) evenly draw each first token as often as its probability says, to one draw."""
    with at_even_chances():
        drawn = policy.generate(PROMPTS[1:2], Sampling(max_new_tokens=1), n=DRAWS, rng=torch.Generator())
    sequences = drawn.samples.sequences
    with torch.no_grad():
        asked = sequences.prompt_ids[0][sequences.prompt_mask[0].bool()]
        p = right(input_ids=asked[None], use_cache=False).logits[0, -1].float().softmax(-1)
    counts = torch.bincount(sequences.response_ids[:, 0], minlength=len(p))
    off = float((counts - DRAWS * p).abs().max())
    assert off < (1 + NEAR * DRAWS if how.exact else 3), f"{off:.1f} draws off"


@contextmanager
def at_even_chances() -> Iterator[None]:
    def even(rows: int, limit: int, **rest: object) -> Tensor:
        return ((torch.arange(rows, dtype=torch.float64) + 0.5) / rows)[:, None].expand(rows, limit)

    with mock.patch.object(torch, "rand", even):
        yield
