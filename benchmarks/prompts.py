"""What it saves to read a prompt once for all responses to it.

    OMP_NUM_THREADS=1 python benchmarks/prompts.py [model=smollm2] [PROMPTS] [RESPONSES]

Sampling, scoring and training passes over PROMPTS prompts with RESPONSES responses each (4 and 8 by default), with and without
sharing, in turn in one process. Prints seconds, how much faster, and how far the results are apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from unittest.mock import PropertyMock, patch

import torch
from alignbench_hf.adapters import AdapterRoles
from alignbench_hf.policy import HFPolicy
from torch import Tensor

from alignbench import Message, Prompt, Sampling, Seeds
from alignbench.app.compose import load_config

TEXT = (
    "I have been cooking for my family for about ten years and I would like to try something new this weekend. We have rice, "
    "chicken, two onions, some tomatoes and a good deal of spices in the kitchen, and nobody eats pork. Could you suggest a dish "
    "number {} that takes less than an hour, and tell me in which order to prepare it so that all is warm at the same time?"
)
NEW_TOKENS, ROUNDS = 32, 3


def main(arguments: list[str]) -> None:
    overrides = [a for a in arguments if "=" in a] or ["model=smollm2"]
    prompts, n = (*[int(a) for a in arguments if "=" not in a], 4, 8)[:2] if arguments else (4, 8)
    policy = load_config([*overrides, "data=hh", "annotator=recorded"]).model.build(
        tokenizer=None,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        seeds=Seeds(0),
    )
    assert isinstance(policy, HFPolicy)
    asked = [Prompt(str(i), (Message("user", TEXT.format(i)),)) for i in range(prompts)]
    sampling = Sampling(max_new_tokens=NEW_TOKENS)

    def sample() -> Tensor:
        return policy.generate(asked, sampling, n=n, rng=torch.Generator(policy.device).manual_seed(0)).logprobs

    rows = policy.generate(asked, sampling, n=n, rng=torch.Generator(policy.device).manual_seed(0)).samples.sequences
    print(f"{prompts} prompts of {policy.prompt_tokens(asked[0])} tokens, {n} responses each of at most {NEW_TOKENS}")

    @torch.no_grad()
    def score() -> Tensor:
        return policy.logprobs(rows).logprobs

    def train() -> Tensor:
        for parameter in policy.trainable():
            parameter.grad = None
        for first in range(0, len(rows), n):
            policy.logprobs(rows.select(slice(first, first + n))).logprobs.sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.trainable() if p.grad is not None])

    for name, work in (("sampling", sample), ("scoring", score), ("training", train)):
        print(compare(name, work))


def compare(name: str, work: Callable[[], Tensor]) -> str:
    seconds: dict[bool, list[float]] = {True: [], False: []}
    results = {}
    for _ in range(ROUNDS):
        for share in (True, False):
            with patch.object(AdapterRoles, "share_prompts", new_callable=PropertyMock, return_value=share):
                start = time.process_time() if not torch.cuda.is_available() else time.perf_counter()
                results[share] = work().detach().clone()
                stop = time.process_time() if not torch.cuda.is_available() else time.perf_counter()
            seconds[share].append(stop - start)
    shared, apart = min(seconds[True]), min(seconds[False])
    away = float((results[True] - results[False]).abs().max() / results[False].abs().max())
    return (
        f"{name:<10} {shared:7.2f} s shared {apart:7.2f} s apart: {apart / shared:.2f} times as fast, {away:.0e} apart"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
