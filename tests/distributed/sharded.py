"""What each of two processes does that share one model, and one alone with the same: sampling, scores, values, updates, files.

    torchrun --nproc-per-node 2 tests/distributed/sharded.py FOLDER

Alone (without torchrun) the model is whole. FOLDER holds the models; what came out is written into FOLDER/one or FOLDER/two."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig

from alignbench import Sampling, Seeds, distributed
from tests import tiny
from tests.distributed.processes import algorithms, updates_of

LAYERS = 4


@dataclass(frozen=True)
class Model:
    """Whether its embeddings are tied to its output layer, and how it is trained: algorithm, settings, size of a micro-batch."""

    tied: bool
    trained: Sequence[tuple[str, dict[str, object], int]]


MODELS = {
    "tied": Model(True, [("dpo", {"gradient_checkpointing": True}, 5)]),
    "apart": Model(False, [("ppo", {}, 1), ("ppo", {"value_trunk": "shared"}, 5)]),
}


def write_models(folder: Path) -> None:
    for name, kind in MODELS.items():
        model = tiny.base_model(layers=LAYERS)
        model.config.tie_word_embeddings = kind.tied
        model.tie_weights()
        model.save_pretrained(folder / name)
        tiny.letters().save_pretrained(folder / name)


def policy(folder: Path, name: str, **changes: object) -> tiny.HFPolicy:
    settings: dict[str, object] = {
        "dtype": "float32",
        "lora_rank": 4,
        "max_prompt_tokens": 8,
        "max_response_tokens": 6,
        "generation_batch_size": 2,
        "scoring_batch_size": 2,
        "merge_adapters": False,
        "shard": distributed.world_size() > 1,
    }
    config = PretrainedConfig(path=str(folder / name), **(settings | changes))  # type: ignore[arg-type]
    return build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))


def answers(found: tiny.HFPolicy) -> dict[str, Tensor]:
    """To batches that do not divide evenly, and to one row for two processes."""
    told: dict[str, Tensor] = {}
    found.freeze_reference()
    role = found.scalar("reward")
    with torch.no_grad():
        role.head.read.weight.fill_(0.1)  # type: ignore[attr-defined]
        for count in (5, 1):
            rollout = found.generate(tiny.PROMPTS[:count], Sampling(), n=1, rng=torch.Generator().manual_seed(0))
            sequences = rollout.samples.sequences
            scores = found.logprobs(sequences, entropy=True)
            assert scores.entropy is not None
            told |= {
                f"{count}/ids": sequences.response_ids.float(),
                f"{count}/sampled": rollout.logprobs,
                f"{count}/logprobs": scores.logprobs,
                f"{count}/reference": found.logprobs(sequences, role="reference").logprobs,
                f"{count}/entropy": scores.entropy,
                f"{count}/values": role.values(sequences)[:, :-1].masked_fill(~sequences.response_mask.bool(), 0.0),
            }
    return told


def trained(folder: Path, name: str, where: Path) -> dict[str, Tensor]:
    """By algorithms with all roles; what is saved of the first is loaded again."""
    told: dict[str, Tensor] = {}
    known = {component.name: component for component in algorithms()}
    for number, (algorithm, model, size) in enumerate(MODELS[name].trained):
        learner = policy(folder, name, **model)
        component = known[algorithm]
        told |= updates_of(learner, component, f"{number} {algorithm}", micro_batch_size=size, learning_rate=1e-3)
        if number == 0:
            path = distributed.agreed(partial(learner.save, where))
            again = policy(folder, name)
            again.load(path)
            sequences = tiny.sequences(again)
            for who, which in (("before", learner), ("again", again)):
                with torch.no_grad():
                    told[f"saved/{who}"] = which.logprobs(sequences).logprobs
    return told


def blocks(found: tiny.HFPolicy) -> Any:
    return found._roles.use("policy").model.layers


def held(found: tiny.HFPolicy) -> Tensor:
    """Numbers of the base's blocks that this process holds."""
    weights = [p for n, p in blocks(found).named_parameters() if "lora_" not in n]
    return torch.tensor(float(sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in weights)))


def whole(found: tiny.HFPolicy) -> Tensor:
    """The most blocks that are whole at once, seen from within a pass there and back."""
    most, layers = 0, blocks(found)

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, sum(not isinstance(layer.input_layernorm.weight, DTensor) for layer in layers))

    hooks = [layer.mlp.act_fn.register_forward_hook(look) for layer in layers]
    hooks += [layer.mlp.act_fn.register_full_backward_hook(look) for layer in layers]
    found.logprobs(tiny.sequences(found)).logprobs.sum().backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    return torch.tensor(float(most))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.joined("cpu"):
        where = folder / ("two" if distributed.world_size() > 1 else "one")
        for name in MODELS:
            found = policy(folder, name)
            told = {"held": held(found)} | answers(found) | {"whole": whole(found), "held/after": held(found)}
            told |= trained(folder, name, where / name)
            if distributed.is_main():
                save_file({key: tensor.contiguous() for key, tensor in told.items()}, where / f"{name}.told")
        distributed.wait_for_all()


def read(folder: Path, who: str, name: str) -> dict[str, Tensor]:
    return load_file(folder / who / f"{name}.told")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
