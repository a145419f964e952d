"""How processor time and memory grow with batch, length, number of prompts, size of the model and number of processes.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--axis length ...] [--results FILE]

One size is moved at a time, the others stay as in BASE: a Llama of random weights in bfloat16 with LoRA of rank 16, few of whose
responses end early. Each point is a process of its own: it samples all responses, then runs one training pass over them. Prints a Markdown table for each
axis: processor seconds (several processes: of the slowest) and the highest resident memory of a process above that of the imported
libraries, each with its slope in log-log from the row above: 1 is linear. Points that FILE holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from alignbench_hf.adapters import AdapterRoles
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignbench import Message, Prompt, Sampling, Seeds, distributed, functional
from alignbench.results.disk.environment import peak_memory_bytes, reset_peak_memory

MIB = 2**20
PORT = 29571
ENOUGH_SECONDS, MOST_ROUNDS = 1.0, 5  # the shortest round counts; long ones are not repeated


@dataclass(frozen=True)
class Point:
    """`batch`: rows at once. `length`: tokens, half of them the prompt's. `size`: see SIZES."""

    batch: int = 8
    length: int = 64
    prompts: int = 8
    size: str = "5M"
    processes: int = 1


@dataclass(frozen=True)
class Size:
    hidden: int
    layers: int
    intermediate: int
    heads: int
    vocabulary: int = 4096


BASE = Point()
SIZES: Mapping[str, Size] = {
    "0.1M": Size(32, 2, 96, 2, 1024),
    "1M": Size(128, 4, 384, 4, 2048),
    "5M": Size(256, 4, 768, 4),
    "32M": Size(512, 8, 1536, 8, 8192),
    "135M": Size(576, 30, 1536, 9, 49152),
    "0.5B": Size(896, 24, 4864, 14, 151936),
}
AXES: Mapping[str, Sequence[Point]] = {
    "batch": [replace(BASE, batch=n, prompts=n) for n in (1, 2, 4, 8, 16, 32, 64)],
    "length": [replace(BASE, length=n) for n in (16, 32, 64, 128, 256, 512)],
    "prompts": [replace(BASE, prompts=n) for n in (8, 16, 32, 64)],
    "size": [replace(BASE, size=name) for name in SIZES],
    "processes": [replace(BASE, prompts=32, processes=n) for n in (1, 2)],
}


@dataclass(frozen=True)
class Found:
    """Of one process: seconds of a processor, and MiB above what the libraries take."""

    parameters: int
    sampling: float
    training: float
    sampling_mib: float
    training_mib: float


def words(number: int) -> PreTrainedTokenizerFast:
    ids = {token: i for i, token in enumerate(("<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(number - 3))))}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m['content'] }} {% endfor %}",
    )  # fmt: skip


def policy_of(point: Point) -> HFPolicy:
    size, half = SIZES[point.size], point.length // 2
    shape = LlamaConfig(
        vocab_size=size.vocabulary, hidden_size=size.hidden, num_hidden_layers=size.layers, intermediate_size=size.intermediate,
        num_attention_heads=size.heads, num_key_value_heads=size.heads, max_position_embeddings=4096, pad_token_id=0, eos_token_id=1,
        bos_token_id=None, tie_word_embeddings=True, dtype="bfloat16", attn_implementation="eager",
    )  # fmt: skip
    config = PretrainedConfig(max_prompt_tokens=half, max_response_tokens=half, generation_batch_size=point.batch)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    with Seeds(0).global_torch("weights"):
        base = LlamaForCausalLM._from_config(shape, dtype=torch.bfloat16)
        roles = AdapterRoles(base, lora)
    return HFPolicy(config, roles, words(size.vocabulary), pretrained=True, device=torch.device("cpu"))


def measured(point: Point) -> Found:
    torch.set_num_threads(1)
    before, policy = peak_memory_bytes() or 0, policy_of(point)
    half, vocabulary = point.length // 2, SIZES[point.size].vocabulary
    ids = torch.randint(3, vocabulary, (point.prompts, half), generator=Seeds(0).torch("prompts")).tolist()
    prompts = [Prompt(str(i), (Message("user", " ".join(f"w{x - 3}" for x in row)),)) for i, row in enumerate(ids)]
    rollout = lambda: policy.generate(prompts, Sampling(), rng=Seeds(0).torch("sampling"))  # noqa: E731
    reset_peak_memory()
    sampling = shortest(rollout)
    sampling_peak = peak_memory_bytes() or 0
    rows = rollout().samples.sequences
    assert int(rows.response_mask.sum()) > 0.8 * point.prompts * half, "few responses end early"

    def train() -> None:
        for parameter in policy.trainable():
            parameter.grad = None
        for piece in functional.micro_batches(rows, torch.arange(point.prompts), point.batch):
            policy.logprobs(rows.select(piece)).logprobs.sum().backward()
        distributed.add_up(*distributed.gradients(policy.trainable()))

    reset_peak_memory()
    training = shortest(train)
    parameters = sum(p.numel() for p in policy._roles.use("policy").parameters())
    peaks = ((peak - before) / MIB for peak in (sampling_peak, peak_memory_bytes() or 0))
    return Found(parameters, sampling, training, *peaks)


def shortest(work: Callable[[], object]) -> float:
    """Of some rounds, as many in every process; the first, in which libraries make what they need, counts only where it is long."""
    found: list[float] = []
    while len(found) < MOST_ROUNDS and not distributed.agreed(lambda: sum(found) > ENOUGH_SECONDS):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def in_processes(point: Point) -> Found:
    """`measured` in as many processes: forked before anything is computed, so that all begin with the libraries alone."""
    pipes, children = [], []
    for rank in range(point.processes):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                several = {"RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT, "WORLD_SIZE": point.processes}
                os.environ.update({name: str(value) for name, value in several.items()})
                with distributed.joined("cpu"), os.fdopen(write, "w") as file:
                    json.dump(asdict(measured(point)), file)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)
        pipes.append(read)
        children.append(child)
    told = [os.fdopen(pipe).read() for pipe in pipes]
    if failed := [child for child in children if os.waitpid(child, 0)[1]]:
        raise SystemExit(f"{len(failed)} of {point.processes} processes failed at {point}.")
    found = [json.loads(text) for text in told]
    return Found(**{name: max(one[name] for one in found) for name in found[0]})


# What is shown


def table(axis: str, points: Sequence[Point], found: Mapping[Point, Found]) -> str:
    titles = ("sampling, s", "slope", "MiB", "slope", "training pass, s", "slope", "MiB", "slope")
    lines = [f"| {axis} | {' | '.join(titles)} |", f"| ---: | {' | '.join(['---:'] * len(titles))} |"]
    above: tuple[float, Found] | None = None
    for point in points:
        if point not in found:
            continue
        one = found[point]
        grown = float(one.parameters if axis == "size" else getattr(point, axis))
        cells = [f"{one.parameters / 1e6:.1f} M" if axis == "size" else f"{grown:g}"]
        for name in ("sampling", "sampling_mib", "training", "training_mib"):
            value = getattr(one, name)
            cells.append(f"{value:.0f}" if name.endswith("mib") else f"{value:.3g}")
            cells.append(slope(above[0], grown, getattr(above[1], name), value) if above else "")
        lines.append(f"| {' | '.join(cells)} |")
        above = grown, one
    return "\n".join(lines)


def slope(x: float, to_x: float, y: float, to_y: float) -> str:
    return f"{math.log(to_y / y) / math.log(to_x / x):.2f}" if min(y, to_y) > 0 else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", choices=list(AXES), nargs="+", default=list(AXES))
    parser.add_argument("--results", type=Path, default=Path("results/runs/scaling.jsonl"))
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for an attribute of another name
    found: dict[Point, Found] = {}
    if options.results.exists():
        for line in options.results.read_text().splitlines():
            known = json.loads(line)
            found[Point(**known["point"])] = Found(**known["found"])
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for axis in options.axis:
        for point in AXES[axis]:
            if point not in found:
                found[point] = in_processes(point)
                with options.results.open("a") as file:
                    file.write(json.dumps({"point": asdict(point), "found": asdict(found[point])}) + "\n")
                print(point, found[point], file=sys.stderr)
    for axis in options.axis:
        print(f"\n{table(axis, AXES[axis], found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
