"""Several processes for one run, one per GPU (or per core, with gloo), started by `torchrun -m alignbench`.

All of them run the same program on the same global batches. The work inside a batch is divided: each process takes its
share of the rows wherever a pass goes over rows (`share`), results without gradients are put together by a sum, and
gradients are summed before each step (`functional.ScheduledAdamW`). So an algorithm that sums its loss over
`functional.micro_batches` and divides by the whole batch needs to know nothing of this. Only the main process writes.
"""

from __future__ import annotations

import atexit
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from alignbench.errors import AlignbenchError, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a process waits for the others. The main one may make them wait for as long as another run takes to make a stage, or a
judge to answer; NCCL's own ten minutes would end the run. Where a process dies, torchrun ends the others at once."""
BUFFER = 2**26
"""Bytes of tensors that one call sums: a call for each of an adapter's hundreds of tensors waits for the others as often."""
FIGURES = 64
"""Numbers of the first call that sums figures; there are seldom more."""


def _group() -> Any:
    """torch.distributed where several processes are joined, else None. Never imports torch: commands that only read use this too."""
    found = sys.modules.get("torch.distributed")
    return found if found is not None and found.is_available() and found.is_initialized() else None


def rank() -> int:
    group = _group()
    return int(group.get_rank()) if group else 0


def world_size() -> int:
    group = _group()
    return int(group.get_world_size()) if group else 1


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def share(rows: Tensor) -> Tensor:
    """This process's rows: every n-th, so that rows sorted by length are spread evenly."""
    return rows[rank() :: world_size()]


_in_step = False


def keep_step() -> None:
    """From now on, until `joined` ends, each process makes as many passes as every other: a model that is divided among them is
    put together, layer by layer, in each pass, and one that makes none would be waited for."""
    global _in_step
    _in_step = True


def pieces(rows: Tensor, size: int) -> Iterator[Tensor]:
    """This process's share of `rows`, at most `size` at a time. In step all processes have as many pieces, for which one may hold a
    row more than `size`, and a process without rows computes the first one in vain (see `idles`)."""
    own = share(rows)
    if not (_in_step and len(rows)):
        yield from own.split(size) if len(own) else ()
        return
    most, least = -(-len(rows) // world_size()), len(rows) // world_size()
    yield from (own if len(own) else rows[:1]).tensor_split(max(min(-(-most // size), least), 1))


def idles(rows: int) -> bool:
    """Whether this process has none of so many rows and yet computes one, for the others' sake: what it finds must not count."""
    return _in_step and rank() >= rows


def refuse_idle(rows: int) -> None:
    """Of passes whose gradients would count."""
    if _in_step and 0 < rows < world_size():
        raise UserError(
            f"{rows} rows are trained on at once, and {world_size()} processes share one model (model.shard=true): each needs a row of "
            "its own. Raise batch_size, or start fewer processes."
        )


def anywhere(here: bool) -> bool:
    """Whether it is so in any of the processes that keep in step; in this one, where they need not."""
    if not (_in_step and (group := _group())):
        return here
    import torch

    count = torch.tensor(int(here))
    group.all_reduce(count)
    return bool(count)


def add_up(*tensors: Tensor) -> None:
    """Replaces each tensor by its sum over all processes: those of one type and device in one call."""
    if not (group := _group()):
        return
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        for some in _buffers(alike):
            if len(some) == 1 and some[0].is_contiguous():
                group.all_reduce(some[0])
            else:
                _add_up_together(group, some)


def _buffers(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In their order, as many at a time as BUFFER holds, or one that is larger."""
    some: list[Tensor] = []
    for tensor in tensors:
        if some and sum(other.nbytes for other in some) + tensor.nbytes > BUFFER:
            yield some
            some = []
        some.append(tensor)
    if some:
        yield some


def _add_up_together(group: Any, tensors: Sequence[Tensor]) -> None:
    import torch

    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    group.all_reduce(flat)
    for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def gradients(parameters: Iterable[torch.nn.Parameter]) -> list[Tensor]:
    """Those of parameters, to be summed over all processes; one that saw none of the rows counts as zero. Alone, those there are."""
    found = []
    for parameter in parameters:
        if parameter.grad is None and _group():
            parameter.grad = parameter.detach().new_zeros(parameter.shape)
        if parameter.grad is not None:
            found.append(parameter.grad)
    return found


def total(figures: Mapping[str, float]) -> Mapping[str, float]:
    """Figures that each process summed over its own rows, summed over all rows. One that had no rows need name none."""
    if not (group := _group()):
        return figures
    import torch

    names = sorted(figures)
    named = float(zlib.crc32("\n".join(names).encode()) % 2**16)
    # On the CPU, where figures are: they go from host to host, and no GPU is waited for.
    sums = torch.tensor([named, named * named, *(figures[name] for name in names)], dtype=torch.float64)
    first = torch.zeros(FIGURES, dtype=torch.float64)
    first[: len(sums)] = sums[:FIGURES]
    group.all_reduce(first)
    if float(first[0]) ** 2 != world_size() * float(first[1]):  # equal if and only if all named the same
        return _total_of_different(group, figures)
    rest = sums[FIGURES:]
    if len(rest):
        group.all_reduce(rest)
    found = dict(zip(names, torch.cat([first[2 : len(sums)], rest]).tolist(), strict=True))
    return {name: found[name] for name in figures}


def _total_of_different(group: Any, figures: Mapping[str, float]) -> Mapping[str, float]:
    parts: list[Mapping[str, float] | None] = [None] * world_size()
    group.all_gather_object(parts, dict(figures))
    found: dict[str, float] = {}
    for part in parts:
        for name, value in (part or {}).items():
            found[name] = found.get(name, 0.0) + value
    return found


def agreed(decide: Callable[[], T]) -> T:
    """What the main process decides, in all of them."""
    if not (group := _group()):
        return decide()
    answer: list[Any] = [decide() if is_main() else None]
    group.broadcast_object_list(answer)
    return answer[0]  # type: ignore[no-any-return]


def asked_once(ask: Callable[[], T]) -> T:
    """`agreed` for what may fail: an error that the user is told of is raised in all processes."""

    def attempt() -> tuple[T | None, AlignbenchError | None]:
        try:
            return ask(), None
        except AlignbenchError as error:
            return None, error

    answer, error = agreed(attempt)
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def wait_for_all() -> None:
    if group := _group():
        group.barrier()


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started; alone it does nothing.

    The size is checked: some launchers start one process where two were asked for, and say nothing."""
    import torch

    global _in_step
    _in_step = False  # the runs of a sweep follow one another, each with a model of its own

    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu:
        take_gpu(device)
    if wanted == 1:
        yield
        return
    if not torch.distributed.is_initialized():  # the runs of a sweep share one group
        # What is decided goes from host to host; tensors go from GPU to GPU.
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=PATIENCE)
        atexit.register(torch.distributed.destroy_process_group)
    if world_size() != wanted:
        raise UserError(f"{world_size()} of {wanted} processes joined: start them with torchrun.")
    yield


def take_gpu(device: str) -> None:
    """Makes this process's GPU the present one: that which the user named, else one for each process of this machine."""
    import torch

    named, gpus = device.partition(":")[2], torch.cuda.device_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if named and processes > 1:
        raise UserError(
            f"device={device} would put all {processes} processes of this machine on one GPU: use device=cuda, which gives each "
            "process one of its own."
        )
    if processes > gpus:
        raise UserError(
            f"{processes} processes on a machine of {gpus} usable GPUs: start one for each GPU, or use device=cpu."
        )
    number = named or os.environ.get("LOCAL_RANK") or "0"
    if number.isdecimal() and int(number) < gpus:  # another one is refused where devices are chosen
        torch.cuda.set_device(int(number))


def peer_was_lost(error: BaseException) -> bool:
    """Whether this is how a process learns that another one is gone."""
    text = str(error).lower()
    return world_size() > 1 and isinstance(error, RuntimeError) and any(w in text for w in ("gloo", "peer", "nccl"))
