"""What each of two processes does that share one model, and one alone with the same: sampling, scores, values, updates, files.

    torchrun --nproc-per-node 2 tests/distributed/sharded.py FOLDER

Alone (without torchrun) the model is whole. FOLDER holds the models; what came out is written into FOLDER/one or FOLDER/two."""

from __future__ import annotations

import sys
from pathlib import Path

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

MODELS = {"tied": True, "apart": False}


def write_models(folder: Path) -> None:
    for name, tied in MODELS.items():
        model = tiny.base_model(layers=3)
        model.config.tie_word_embeddings = tied
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
                f"{count}/values": role.values(sequences) * sequences.response_mask[:, :1],
            }
    return told


def trained(folder: Path, name: str, where: Path) -> dict[str, Tensor]:
    """By two algorithms with all roles; what is saved of the first is loaded again."""
    told: dict[str, Tensor] = {}
    known = {component.name: component for component in algorithms()}
    ways = [("ppo", {}, 1), ("dpo", {"gradient_checkpointing": True}, 5), ("ppo", {"value_trunk": "shared"}, 5)]
    for number, (algorithm, model, size) in enumerate(ways):
        learner = policy(folder, name, **model)
        told |= updates_of(learner, known[algorithm], f"{number} {algorithm}", micro_batch_size=size)
        if number == 0:
            path = distributed.agreed(lambda: learner.save(where))
            again = policy(folder, name)
            again.load(path)
            sequences = tiny.sequences(again)
            for who, which in (("before", learner), ("again", again)):
                with torch.no_grad():
                    told[f"saved/{who}"] = which.logprobs(sequences).logprobs
    return told


def held(found: tiny.HFPolicy) -> Tensor:
    """Numbers of the base's blocks that this process holds."""
    model = found._roles.use("policy")
    weights = [p for n, p in model.model.layers.named_parameters() if "lora_" not in n]
    return torch.tensor(float(sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in weights)))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.joined("cpu"):
        where = folder / ("two" if distributed.world_size() > 1 else "one")
        for name in MODELS:
            found = policy(folder, name)
            told = {"held": held(found)} | answers(found) | {"held/after": held(found)}
            told |= trained(folder, name, where / name)
            if distributed.is_main():
                save_file({key: tensor.contiguous() for key, tensor in told.items()}, where / f"{name}.told")
        distributed.wait_for_all()


def read(folder: Path, who: str, name: str) -> dict[str, Tensor]:
    return load_file(folder / who / f"{name}.told")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
