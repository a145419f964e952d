"""How often the host waits for the device, and how many kernels it starts: what a GPU's speed hangs on with small models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from alignbench_hf.policy import HFPolicy
from alignbench_hf.sampling import Request, loop

from alignbench import POLICY, Sampling, Seeds
from tests import tiny
from tests.pretended_gpu.device import GPU, PretendedGpu

CEILINGS: Mapping[str, float] = {
    "waits a token": 7,
    "kernels a token, apart from layers": 68,
    "kernels a token and layer, merged": 53,
    "kernels a token and layer, beside the base": 81,
    "kernels a layer, forward": 168,
    "kernels a layer, back": 307,
}
"""Of a Llama in bfloat16 under sdpa. Who needs fewer lowers them."""
LAYERS = (1, 2)
TOKENS = (4, 12)


def made(layers: int, *, merge: bool) -> HFPolicy:
    base = tiny.base_model(layers=layers, dtype=torch.bfloat16)
    base.set_attn_implementation("sdpa")
    return tiny.adapters(base, device=GPU, merge_adapters=merge)


def decoded(policy: HFPolicy, tokens: int) -> None:
    """Responses of so many tokens: a chance of 0 always draws the first token of the vocabulary, which is not EOS."""
    ids, mask = policy._pad_prompts(tiny.PROMPTS)
    chances = torch.zeros(len(ids), tokens, dtype=torch.float64, device=GPU)
    with torch.no_grad(), policy._roles.sampling(POLICY) as model, policy._roles.computing():
        request = Request(ids, mask, Sampling(), tokens, tiny.EOS, tiny.PAD, chances, share_prompts=True)
        found = loop(model, policy._output(model), request)
    assert bool(found.mask.all()), "no row ended early"


def counts(gpu: PretendedGpu) -> dict[str, float]:
    """By differences: between lengths, what a token takes; between depths, what a layer of it does."""
    found: dict[str, float] = {}
    for merge in (True, False):
        of_token = {}
        for layers in LAYERS:
            policy, seen = made(layers, merge=merge), []
            for tokens in TOKENS:
                gpu.reset()
                decoded(policy, tokens)
                seen.append((gpu.kernels, gpu.waits.total()))
            (few, fewer_waits), (many, more_waits) = seen
            of_token[layers] = (many - few) / (TOKENS[1] - TOKENS[0])
            found["waits a token"] = (more_waits - fewer_waits) / (TOKENS[1] - TOKENS[0])
        how = "merged" if merge else "beside the base"
        found[f"kernels a token and layer, {how}"] = a_layer(of_token)
        found["kernels a token, apart from layers"] = of_token[LAYERS[0]] - LAYERS[0] * a_layer(of_token)
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


def a_layer(of: Mapping[int, float]) -> float:
    few, many = LAYERS
    return (of[many] - of[few]) / (many - few)


def over(found: Mapping[str, float]) -> list[str]:
    """What is over its ceiling."""
    return [f"{name}: {found[name]:g}, at most {most:g}" for name, most in CEILINGS.items() if found[name] > most]
