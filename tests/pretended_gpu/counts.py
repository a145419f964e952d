"""How often the host waits for the device, and how many kernels it starts: what a GPU's speed hangs on with small models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from alignbench_hf.policy import HFPolicy

from alignbench import POLICY, Request, Sampling, Seeds
from tests import tiny
from tests.pretended_gpu.device import GPU, PretendedGpu

CEILINGS: Mapping[str, float] = {
    "waits a token": 0.125,
    "kernels a token, apart from layers": 60,
    "kernels a token and layer, merged": 53,
    "kernels a token and layer, beside the base": 81,
    "waits a token, captured": 0.125,
    "launches a token, captured": 2,
    "kernels a captured token, apart from layers": 61,
    "kernels a captured token and layer": 53,
    "kernels a layer, forward": 168,
    "kernels a layer, back": 307,
}
"""Of a Llama in bfloat16 under sdpa. Who needs fewer lowers them."""
LAYERS = (1, 2)
TOKENS = (4, 12)


def made(layers: int, *, merge: bool, decode: str = "eager") -> HFPolicy:
    base = tiny.base_model(layers=layers, dtype=torch.bfloat16)
    base.set_attn_implementation("sdpa")
    return tiny.adapters(base, device=GPU, merge_adapters=merge, decode=decode)


def decoded(policy: HFPolicy, tokens: int) -> None:
    """Responses of so many tokens: a chance of 0 always draws the first token of the vocabulary, which is not EOS."""
    ids, mask = policy._pad_prompts(tiny.PROMPTS)
    chances = torch.zeros(len(ids), tokens, dtype=torch.float64, device=GPU)
    with torch.no_grad(), policy._roles.sampling(POLICY) as model, policy._roles.computing():
        request = Request(
            ids, mask, Sampling(), tokens, torch.tensor([tiny.EOS], device=GPU), tiny.PAD, chances, share_prompts=True,
        )  # fmt: skip
        found = policy._sampler.sample(model, policy._output(model), request)
    assert bool(found.mask.all()), "no row ended early"


def counts(gpu: PretendedGpu) -> dict[str, float]:
    """By differences: between lengths, what a token takes; between depths, what a layer of it does."""
    found: dict[str, float] = {}
    for merge in (True, False):
        of_token, found["waits a token"] = a_token(gpu, merge=merge, decode="eager")
        how = "merged" if merge else "beside the base"
        found[f"kernels a token and layer, {how}"] = a_layer(of_token)
        found["kernels a token, apart from layers"] = of_token[LAYERS[0]] - LAYERS[0] * a_layer(of_token)
    gpu.captured = None
    of_token, found["waits a token, captured"] = a_token(gpu, merge=True, decode="compiled")
    found["launches a token, captured"] = max(of_token.values())
    inside = {}
    for layers in LAYERS:
        decoded(made(layers, merge=True, decode="compiled"), TOKENS[0])
        inside[layers] = len(gpu.captured) if gpu.captured else 10**9
    found["kernels a captured token and layer"] = a_layer(inside)
    found["kernels a captured token, apart from layers"] = inside[LAYERS[0]] - LAYERS[0] * a_layer(inside)
    forward, back = {}, {}
    for layers in LAYERS:
        policy = made(layers, merge=True)
        rows = policy.generate(tiny.PROMPTS, Sampling(), n=2, rng=Seeds(0).torch("sampling")).samples.sequences
        gpu.reset()
        loss = policy.logprobs(rows).logprobs.sum()
        forward[layers] = gpu.kernels
        gpu.reset()
        loss.backward()
        back[layers] = gpu.kernels
    return found | {"kernels a layer, forward": a_layer(forward), "kernels a layer, back": a_layer(back)}


def a_token(gpu: PretendedGpu, *, merge: bool, decode: str) -> tuple[dict[int, float], float]:
    """What the host starts for a token, by depth, and how often it waits."""
    of_token: dict[int, float] = {}
    for layers in LAYERS:
        policy, seen = made(layers, merge=merge, decode=decode), []
        decoded(policy, TOKENS[0])  # what is checked or made once
        for tokens in TOKENS:
            gpu.reset()
            decoded(policy, tokens)
            seen.append((gpu.kernels, gpu.waits.total()))
        (few, fewer_waits), (many, more_waits) = seen
        of_token[layers] = (many - few) / (TOKENS[1] - TOKENS[0])
    return of_token, (more_waits - fewer_waits) / (TOKENS[1] - TOKENS[0])


def a_layer(of: Mapping[int, float]) -> float:
    few, many = LAYERS
    return (of[many] - of[few]) / (many - few)


def over(found: Mapping[str, float]) -> list[str]:
    """What is over its ceiling."""
    return [f"{name}: {found[name]:g}, at most {most:g}" for name, most in CEILINGS.items() if found[name] > most]
