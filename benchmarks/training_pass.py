"""Training passes with some settings beside the same passes with others, in one process.

    OMP_NUM_THREADS=1 python benchmarks/training_pass.py FOLDER_OF_HH_RLHF [--algorithm ppo|dpo] [--rounds 9] [--rows 32] [--profile] [A ...] [--beside B ...]

SmolLM2-135M-Instruct in bfloat16 with LoRA of rank 16 on all linear layers. A step: prompts of at most 64 tokens with 48 new ones each, 8 at a
time, scored once, then forward and back through the policy and through a value network (ppo); or pairs of at most 120 tokens a side, 4 at a time (dpo);
then AdamW. Two policies of settings A and B take steps in turn, so that what else the machine does hits both: the medians' ratio is what counts.
Time is the processor's, all threads together. The first step of each, in which code may be compiled, is told apart. Losses and gradients' norms
are printed beside one another. `--profile`: the operators that a step of A is made of.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESPONSE, MICRO = 48, {"ppo": 8, "dpo": 4}


@dataclass(frozen=True)
class Stepped:
    """What a step told: the sum of log-probabilities, the norm of the gradients, the largest distance between the log-probabilities that
    were scored and those that were trained on; seconds of the processor."""

    logprob: float
    norm: float
    apart: float
    seconds: float


def stepping(algorithm: str, data: Path, rows: int, overrides: list[str]) -> Callable[[], Stepped]:
    import torch
    import trl_dpo
    import trl_ppo

    from alignbench import Message, Prompt, Seeds, functional
    from alignbench.app.compose import load_config

    prepared = (trl_ppo.prepare if algorithm == "ppo" else trl_dpo.prepare)(data, rows, "")
    tokens = (trl_ppo.PROMPT_TOKENS, RESPONSE) if algorithm == "ppo" else (trl_dpo.TOKENS, trl_dpo.TOKENS)
    config = load_config(
        [
            "model=smollm2", "data=hh", f"model.path={prepared['model']}", "model.dtype=bfloat16",
            f"model.max_prompt_tokens={tokens[0]}", f"model.max_response_tokens={tokens[1]}", *overrides,
        ]
    )  # fmt: skip
    policy = config.model.build(tokenizer=None, device=torch.device("cpu"), seeds=Seeds(0))
    value: Any = None
    if algorithm == "ppo":
        asked = [
            Prompt(str(i), tuple(Message(**m) for m in row["messages"])) for i, row in enumerate(prepared["prompts"])
        ]
        drawn = torch.Generator().manual_seed(0)
        answers = torch.randint(1000, 40000, (rows, RESPONSE), generator=drawn).tolist()
        whole, value = policy.given(asked, answers), policy.scalar("value")
        batches = [whole.select(part) for part in functional.micro_batches(whole, torch.arange(rows), MICRO["ppo"])]
    else:
        asked = [Prompt(str(i), tuple(Message(**m) for m in row["prompt"])) for i, row in enumerate(prepared["pairs"])]
        sides = [
            policy.encode(asked, [row[side] for row in prepared["pairs"]]).sequences for side in ("chosen", "rejected")
        ]
        parts = list(functional.micro_batches(sides[0], torch.arange(rows), MICRO["dpo"]))
        batches = [functional.stacked(*(side.select(part) for side in sides)) for part in parts]
    trained = [*policy.trainable(), *(value.parameters() if value else ())]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)

    def step() -> Stepped:
        begun, total, apart = time.process_time(), 0.0, 0.0
        optimizer.zero_grad()
        for batch in batches:
            with torch.no_grad():
                scored = policy.logprobs(batch).logprobs
            found = policy.logprobs(batch).logprobs
            found.sum().backward()
            if value is not None:
                value.values(batch).square().sum().backward()
            total += float(found.detach().sum())
            apart = max(apart, float((found.detach() - scored).abs().max()))
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None]))
        optimizer.step()
        return Stepped(total, norm, apart, time.process_time() - begun)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the files of HH-RLHF")
    parser.add_argument("settings", nargs="*", help="settings of the first policy")
    parser.add_argument("--beside", nargs="+", default=[], help="settings of the second")
    parser.add_argument("--algorithm", choices=tuple(MICRO), default="ppo")
    parser.add_argument("--rounds", type=int, default=9, help="steps of each")
    parser.add_argument("--rows", type=int, default=32, help="prompts, or pairs, of a step")
    parser.add_argument("--profile", action="store_true", help="what one step of the first is made of")
    arguments = parser.parse_intermixed_args()
    kinds = [arguments.settings, *([arguments.beside] if arguments.beside else [])]
    steps = [stepping(arguments.algorithm, arguments.data, arguments.rows, kind) for kind in kinds]
    first = [step() for step in steps]
    if arguments.profile:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            steps[0]()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=50))
        return
    found: list[list[Stepped]] = [[] for _ in steps]
    for _ in range(arguments.rounds):
        for step, into in zip(steps, found, strict=True):
            into.append(step())
    print("| settings | first step, s | a step, s | log-probability | gradient norm | scored and trained apart |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind, begun, steps_of in zip(kinds, first, found, strict=True):
        median = statistics.median(step.seconds for step in steps_of)
        print(
            f"| {' '.join(kind) or 'defaults'} | {begun.seconds:.1f} | {median:.2f} | {begun.logprob:.1f} | {begun.norm:.4g} | {begun.apart:.2g} |"
        )
    if len(found) == 2:
        ratios = [one.seconds / other.seconds for one, other in zip(*found, strict=True)]
        print(f"\nthe second is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
