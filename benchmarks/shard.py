"""What one process holds of a model alone, and what each of two holds that share it (`model.shard=true`).

    OMP_NUM_THREADS=1 python benchmarks/shard.py [--hidden 640] [--layers 24] [--processes 2]

A Llama of random weights is written in bfloat16 into a temporary folder. One process, and then torchrun's, read it, hold it in float32, give it
all four roles, sample, score, and take a step of the policy and of the value. Prints what a process took at its peak, beside what it took before the model was read,
and the mean log-probability of what was sampled, which is the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROWS, NEW_TOKENS, RANK = 4, 3, 4
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<bot> {% endif %}{{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)


@dataclass(frozen=True)
class Took:
    """MiB before the model was read and at the peak, seconds after it was read, and what tells that the model is the same."""

    before: float
    peak: float
    seconds: float
    logprob: float
    gradient_norm: float

    @property
    def model(self) -> float:
        return self.peak - self.before


def write_model(folder: Path, hidden: int, layers: int) -> int:
    """Its number of parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(("<pad>", "<eos>", "<unk>", "<bot>", *LETTERS))}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )
    shape = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=4 * hidden,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def work(folder: Path) -> Took:
    """In this process, and with those that torchrun started beside it."""
    import torch
    from alignbench_hf.build import build_pretrained
    from alignbench_hf.config import PretrainedConfig

    from alignbench import REFERENCE, Message, OptimizerConfig, Prompt, Sampling, Seeds, distributed, functional
    from alignbench.results.disk.environment import peak_memory_bytes, reset_peak_memory

    with distributed.joined("cpu"):
        reset_peak_memory()
        before = peak_memory_bytes() or 0
        config = PretrainedConfig(
            path=str(folder),
            dtype="float32",
            lora_rank=RANK,
            merge_adapters=False,
            max_prompt_tokens=16,
            max_response_tokens=NEW_TOKENS,
            shard=distributed.world_size() > 1,
        )
        policy = build_pretrained(config, tokenizer=None, device=torch.device("cpu"), seeds=Seeds(0))
        policy.freeze_reference()
        reward, value = policy.scalar("reward"), policy.scalar("value")
        groups = {"policy": policy.trainable(), "value": value.parameters()}
        optimizer = functional.ScheduledAdamW(OptimizerConfig(), groups, 1)
        prompts = [Prompt(str(i), (Message("user", " ".join(LETTERS[i : i + 8])),)) for i in range(ROWS)]
        start = time.perf_counter()
        rows = policy.generate(prompts, Sampling(), rng=torch.Generator().manual_seed(0)).samples.sequences
        with torch.no_grad():
            scores = policy.logprobs(rows).logprobs
            policy.logprobs(rows, role=REFERENCE)
            reward.values(rows)
        optimizer.next_update()
        optimizer.zero_grad()
        for piece in functional.micro_batches(rows, torch.arange(ROWS), ROWS):
            part = rows.select(piece)
            policy.logprobs(part).logprobs.sum().backward()  # type: ignore[no-untyped-call]
            value.values(part).sum().backward()
        norm = optimizer.step()["policy"]
        seconds = time.perf_counter() - start
        mean = float(functional.masked_mean(scores, rows.response_mask))
        return Took(before / 2**20, (peak_memory_bytes() or 0) / 2**20, seconds, mean, norm)


def measured(folder: Path, processes: int) -> Took:
    """Of the process that took most."""
    told = folder / f"told-{processes}"
    told.mkdir()
    launch = (
        ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"] if processes > 1 else []
    )
    subprocess.run([sys.executable, *launch, __file__, "--told", str(told), "--folder", str(folder)], check=True)
    return max((Took(**json.loads(file.read_text())) for file in told.iterdir()), key=lambda took: took.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=640)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--told", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.told:
        import os

        took = work(options.folder)
        (options.told / os.environ.get("RANK", "0")).write_text(json.dumps(asdict(took)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parameters = write_model(folder, options.hidden, options.layers)
        alone, shared = (measured(folder, processes) for processes in (1, options.processes))
    print(f"{parameters / 1e6:.0f} M parameters, {4 * parameters / 2**20:.0f} MiB of weights as they are held\n")
    print("| processes | before, MiB | peak, MiB | the model's part | log-probability | gradient norm | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for processes, took in ((1, alone), (options.processes, shared)):
        print(
            f"| {processes} | {took.before:.0f} | {took.peak:.0f} | {took.model:.0f} | {took.logprob:.6f} | "
            f"{took.gradient_norm:.6g} | {took.seconds:.1f} |"
        )
    print(
        f"\nof one alone: the model's part {shared.model / alone.model:.2f}, the whole process {shared.peak / alone.peak:.2f}"
    )


if __name__ == "__main__":
    main()
