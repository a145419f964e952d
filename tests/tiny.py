"""Models of a few thousand weights over a vocabulary of letters, for tests of whatever trains or samples."""

from __future__ import annotations

import torch
from alignbench_hf.adapters import AdapterRoles
from alignbench_hf.build import build_scratch
from alignbench_hf.config import PretrainedConfig, ScratchConfig
from alignbench_hf.engine.contract import Engine
from alignbench_hf.policy import HFPolicy
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from alignbench import Message, Prompt, Sampling, ScoredRollout, Seeds, Sequences

CPU = torch.device("cpu")
PAD, EOS = 0, 1


def letters(alphabet: str = "abcdefgh") -> PreTrainedTokenizerFast:
    """One token a letter: the ids are <pad> 0, <eos> 1, <unk> 2, <bot> 3, then the letters; <bot> ends a prompt."""
    ids = {token: i for i, token in enumerate(("<pad>", "<eos>", "<unk>", "<bot>", *alphabet))}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=["<bot>"],
        chat_template="{% for m in messages %}{% if m['role'] == 'assistant' %}<bot> {% endif %}{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}<bot>{% endif %}",
    )


def prompt(text: str) -> Prompt:
    return Prompt(id=text, messages=(Message("user", text),))


PROMPTS = tuple(prompt(text) for text in ("a", "b c d", "e f", "h g f e d", "c c", "a b"))


def scratch(seed: int = 0, device: torch.device = CPU, **changes: object) -> HFPolicy:
    """A policy all of whose weights are trained; its responses end early, late and not at all."""
    settings = {
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "intermediate_size": 24,
        "initializer_range": 0.4,
        "max_prompt_tokens": 8,
        "max_response_tokens": 6,
        "scalar_head": "linear",
    }
    config = ScratchConfig(**(settings | changes))
    return build_scratch(config, tokenizer=letters(), device=device, seeds=Seeds(seed))


def base_model(
    seed: int = 0, *, layers: int = 2, hidden: int = 16, dtype: torch.dtype = torch.float32
) -> LlamaForCausalLM:
    shape = LlamaConfig(
        vocab_size=12,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.4,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(shape).to(dtype)


def adapters(
    base: PreTrainedModel | None = None,
    *,
    rank: int = 4,
    alpha: float = 8.0,
    seed: int = 0,
    device: torch.device = CPU,
    engine: Engine | None = None,
    **changes: object,
) -> HFPolicy:
    """A policy of LoRA adapters on a frozen base, moved away from it: a fresh adapter changes nothing."""
    settings = {
        "max_prompt_tokens": 8,
        "max_response_tokens": 6,
        "generation_batch_size": 256,
        "scoring_batch_size": 256,
    }
    config = PretrainedConfig(**(settings | changes))
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        roles = AdapterRoles(
            (base_model(seed) if base is None else base).to(device),
            lora,
            merge_while_sampling=config.merge_adapters,
            gradient_checkpointing=config.gradient_checkpointing,
            passes=config.blocks,
        )
    policy = HFPolicy(config, roles, letters(), pretrained=True, device=device, engine=engine)
    move(policy, seed=seed)
    return policy


def move(policy: HFPolicy, *, seed: int = 0, scale: float = 0.3) -> None:
    """Adds noise to the policy's weights: what training does, for tests that need only that they changed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter)


def sequences(policy: HFPolicy, *, n: int = 2, seed: int = 0) -> Sequences:
    """Sampled responses of different lengths to prompts of different lengths."""
    rng = torch.Generator().manual_seed(seed)
    return policy.generate(PROMPTS, Sampling(), n=n, rng=rng).samples.sequences


def scored(policy: HFPolicy, *, n: int = 2, seed: int = 0, temperature: float = 1.0) -> ScoredRollout:
    """A rollout with random scores."""
    rng = torch.Generator().manual_seed(seed)
    rollout = policy.generate(PROMPTS, Sampling(temperature=temperature), n=n, rng=rng)
    return ScoredRollout(rollout, torch.randn(len(rollout.samples), generator=rng).to(policy.device))
