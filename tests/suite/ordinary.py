"""Models of ordinary text that need no download: a tokenizer of bytes, a Llama of random weights, and planted subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from alignbench_hf.config import ScratchConfig
from alignbench_hf.policy import HFPolicy
from alignbench_hf.roles import CopiedRoles
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignbench import Generation, Likelihood, Prompt, Sampling, Subject, expand
from alignbench.evaluation.respond import complete, likelihoods

TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token; two newlines are one, so that a continuation may merge with the prompt's last token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\n")[0][0]
    vocabulary = {token: i for i, token in enumerate([*alphabet, newline * 2])}
    backend = Tokenizer(models.BPE(vocabulary, [(newline, newline)]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<|end|>",
        extra_special_tokens=["<|user|>"],
        chat_template=TEMPLATE,
    )


def model(seed: int = 0) -> LlamaForCausalLM:
    words = tokenizer()
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=24, max_position_embeddings=4096, initializer_range=0.4, tie_word_embeddings=True,
        pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(shape)


def subject_of(policy: HFPolicy) -> Subject:
    def completions(prompts: Sequence[Prompt], n: int, sampling: Sampling) -> tuple[Generation, ...]:
        return complete(policy, prompts, n=n, sampling=sampling, rng=torch.Generator().manual_seed(0))

    return subject(
        policy.tokenizer,
        completions,
        lambda prompts, responses, counted=None: likelihoods(policy, prompts, responses, counted),
    )


def small(seed: int = 0) -> Subject:
    config = ScratchConfig(max_prompt_tokens=64, max_response_tokens=8)
    roles = CopiedRoles(model(seed))
    return subject_of(HFPolicy(config, roles, tokenizer(), pretrained=True, device=torch.device("cpu")))


def subject(words: PreTrainedTokenizerFast, completions: Callable, likely: Callable) -> Subject:
    return Subject(
        Path("."), (), (), words, respond=lambda prompts, n: (), measure=lambda prompts, responses: (),
        complete=completions, likelihoods=likely, ordinary_text=True,
    )  # fmt: skip


def planted(
    prefer: Callable[[str, str], float] = lambda question, choice: 0.0,
    say: Callable[[str], str] = lambda question: "",
) -> Subject:
    """A model whose log-probability of a choice, and whose response, are a function of the question."""
    words = tokenizer()

    def likely(
        prompts: Sequence[Prompt], responses: Sequence[Sequence[int]], counted: Sequence[int] | None = None
    ) -> tuple[Likelihood, ...]:
        texts = words.batch_decode([list(row) for row in responses])
        return tuple(Likelihood(prefer(p.text, t.strip()), False) for p, t in zip(prompts, texts, strict=True))

    def completions(prompts: Sequence[Prompt], n: int, sampling: Sampling) -> tuple[Generation, ...]:
        nan = float("nan")
        return tuple(
            Generation(p, i % n, say(p.text), 1, True, logprob=nan, ref_logprob=nan, entropy=nan)
            for i, p in enumerate(expand(prompts, n))
        )

    return subject(words, completions, likely)
