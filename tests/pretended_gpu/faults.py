"""Faults that a CPU alone never shows, each planted in the code, and what is seen of it on the pretended GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from alignbench import functional
from tests.pretended_gpu.device import GPU

Change = Callable[[Any], Any]
PPO, TWO_DEVICES = "ppo, adapters", "Expected all tensors to be on the same device"


@dataclass(frozen=True)
class Fault:
    """`target` is replaced by `change(target)`; the work then fails as `seen` says. Without `work`: counts are over their
    ceilings, and `seen` names which."""

    name: str
    target: str
    change: Change
    seen: str
    work: str = PPO


def index_by_the_cpu(original: Any) -> Any:
    def micro_batches(sequences: Any, rows: Tensor, size: int) -> Iterator[Tensor]:
        lengths = sequences.prompt_mask.sum(1) + sequences.response_mask.sum(1)
        yield from functional.own_pieces(rows[lengths[rows].argsort(stable=True)], size)

    return micro_batches


def read_by_numpy(original: Any) -> Any:
    return lambda policy, sequences: tuple(policy.tokenizer.batch_decode(sequences.response_ids.numpy()))


def mask_of_the_host(original: Any) -> Any:
    def pad(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        ids, mask = original(*arguments, **options)
        return ids, mask.cpu()

    return pad


def moments_on_the_cpu(original: Any) -> Any:
    def load_state_dict(optimizer: Any, state: Any) -> None:
        inner, saved = optimizer._optimizer, state["optimizer"]["state"]
        parameters = [p for group in inner.param_groups for p in group["params"]]
        inner.state.update({parameters[i]: dict(moments) for i, moments in saved.items()})

    return load_state_dict


def weights_on_the_cpu(original: Any) -> Any:
    def restored(state: Any, policy: Any, optimizer: Any) -> Any:
        done = original(state, policy, optimizer)
        for parameter, saved in zip(policy.trainable(), state["weights"], strict=True):
            parameter.data = saved
        return done

    return restored


def gradient_on_the_cpu(original: Any) -> Any:
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        base, x, down, up, none = original(ctx, *upstream)
        return base, x, down.cpu(), up, none

    return staticmethod(backward)


def states_in_another_type(original: Any) -> Any:
    def forward(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        found.last_hidden_state = found.last_hidden_state.float()
        return found

    return forward


def copy_on_the_cpu(original: Any) -> Any:
    def add(roles: Any, role: str, init_from: str, *, trainable: bool) -> None:
        original(roles, role, init_from, trainable=trainable)
        roles._models[role] = roles._models[role].cpu()

    return add


def one_wait_more(original: Any) -> Any:
    def draw(*arguments: Any) -> Any:
        token, logprob = original(*arguments)
        assert int(token.sum()) >= 0
        return token, logprob

    return draw


def position_made_anew(original: Any) -> Any:
    def logits(step: Any) -> Tensor:
        step.position = step.position.clone()
        found: Tensor = original(step)
        return found

    return logits


def one_cast_more(original: Any) -> Any:
    return lambda layer, x: original(layer, x.double().to(x.dtype))


def result_of(change: Callable[[Tensor], Tensor]) -> Change:
    return lambda original: lambda *arguments, **options: change(original(*arguments, **options))


FAULTS = (
    Fault("an index on the CPU", "alignbench.functional.micro_batches", index_by_the_cpu, "indices should be either on cpu"),
    Fault(
        "a generator of the other device", "torch.rand",
        lambda original: lambda *sizes, device=None, **options: original(*sizes, device=GPU, **options),
        "Expected a 'cuda' device type for generator but found 'cpu'",
    ),
    Fault("numpy", "alignbench_hf.policy.HFPolicy._texts", read_by_numpy, "can't convert cuda:0 device type tensor to numpy"),
    Fault("a mask made on the host", "alignbench_hf.policy.pad", mask_of_the_host, TWO_DEVICES),
    Fault("scores left on the CPU in a batch", "alignbench.scoring.checked_scores", result_of(Tensor.cpu), TWO_DEVICES),
    Fault("positions counted on the CPU", "alignbench_hf.decoding.samplers.positions", result_of(Tensor.cpu), TWO_DEVICES),
    Fault(
        "a head left on the CPU", "alignbench_hf.scalar.LinearHead.to", lambda original: lambda head, device: head, TWO_DEVICES
    ),
    Fault("a role copied to the CPU", "alignbench_hf.roles.CopiedRoles.add", copy_on_the_cpu, TWO_DEVICES, "dpo, copies"),
    Fault(
        "a gradient on the CPU", "alignbench_hf.architecture.lora._AddAdapter.backward", gradient_on_the_cpu,
        "expected device cuda:0 but got cpu",
    ),
    Fault(
        "moments left on the CPU when a run goes on", "alignbench.functional.ScheduledAdamW.load_state_dict",
        moments_on_the_cpu, TWO_DEVICES,
    ),
    Fault(
        "weights left on the CPU when a run goes on", "alignbench.pipeline.training._restored", weights_on_the_cpu, TWO_DEVICES,
    ),
    Fault(
        "states in float32 before a head in bfloat16", "alignbench_hf.architecture.output._StandIn.forward", states_in_another_type,
        "same dtype", "ppo, gpt_neox in bfloat16",
    ),
    Fault("one wait more a token", "alignbench_hf.decoding.samplers.draw", one_wait_more, "waits a token: 1.125, at most 0.125", ""),
    Fault(
        "a wait in a step that is captured", "alignbench_hf.decoding.compiled.draw", one_wait_more, "launches a token, captured",
        "",
    ),
    Fault(
        "a position that is not kept where it was", "alignbench_hf.decoding.compiled.Step.logits", position_made_anew,
        "not those of eager", "sampling, captured",
    ),
    Fault(
        "a mask without its last column", "alignbench_hf.decoding.fixed.FixedLayer.get_seq_length",
        result_of(lambda column: column - 1), "a compiled step does not work", "sampling, captured",
    ),
    Fault("two casts more in every adapted layer", "alignbench_hf.architecture.lora._forward", one_cast_more, "kernels a layer, forward", ""),
)  # fmt: skip
