"""A base that is divided among processes by torch's `fully_shard`, which transformers applies as it loads: each process holds a part
of every layer, and all of them put a layer together for the time of its pass.

The output layer is whole from its first use on: it is used once for each chunk of positions, of which processes have different
numbers. Adapters are added later, role by role, and are whole everywhere, as are their moments and gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from alignbench import UserError, functional
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.memory import give_back_at_once

Model = Any  # a transformers causal language model


def shards_of(config: PretrainedConfig, device: torch.device) -> int:
    """Among how many processes the base is divided. Commands that read a finished run have one, which holds it whole."""
    if not (config.shard and torch.distributed.is_initialized()):
        return 1
    if device.type == "cpu" and torch.cuda.is_available():
        raise UserError(
            "model.shard=true divides a model among the GPUs of this machine, and device=cpu leaves them out: use device=cuda, or "
            "hide them (CUDA_VISIBLE_DEVICES=)."
        )
    return torch.distributed.get_world_size()


def begin_sharded(model: Model) -> None:
    """Readies a model that has been loaded so, for passes that begin at its trunk."""
    functional.keep_step()
    give_back_at_once()
    for holder in (model, model.get_input_embeddings(), model.get_output_embeddings()):
        if isinstance(holder, FSDPModule) and (holder is not model.get_input_embeddings() or _tied(model)):
            holder.set_reshard_after_backward(False, recurse=False)
    with torch.no_grad():  # from a pass that begins there, torch learns which module is the root
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


def gather_output(model: Model) -> None:
    """Makes the output layer whole, for all processes at once; does nothing where it is so, or nothing is divided."""
    if not isinstance(model, FSDPModule):
        return
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if not _tied(model):
        output.unshard()
        return
    # transformers holds tied weights twice: with the embeddings, and with what no part of its plan names.
    embeddings.unshard()
    if output.weight is not embeddings.weight:
        model.reshard()
        output.weight = embeddings.weight


def _tied(model: Model) -> bool:
    return bool(model.all_tied_weights_keys)
