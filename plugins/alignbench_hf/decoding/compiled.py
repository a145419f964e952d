"""`loop`'s decoding with a step that is captured as a CUDA graph, or compiled on a CPU: one launch a token, or none of Python's work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from alignbench import AlignbenchError, Decoded, Policy, Request, Sampler, Sampling, pretrained
from alignbench.functional import draw
from alignbench_hf.architecture.trunk import LEAST_TOKENS, read
from alignbench_hf.config import LoopConfig
from alignbench_hf.decoding.fixed import FixedLayer, UnfitError, fixed_cache
from alignbench_hf.decoding.samplers import LOOK_EVERY, Begun, begin, first_going, loop, still_going
from alignbench_hf.probe import FAR
from alignbench_hf.prompts import positions

EVICT_AT = 0.5
"""Share of unfinished rows at which finished ones leave a batch that is captured: it is then captured anew, which takes about as long
as two tokens do without."""

log = logging.getLogger(__name__)


@dataclass
class Step:
    """All that a token changes, on the device and in place. `token` and `position` [b, 1] of the rows `alive` [b], `attention`
    [b, columns], `column` [1] of the cache that the token is written to, `number` [1] of the token to be drawn."""

    model: Any
    output: Callable[[Tensor], Tensor]
    sampling: Sampling
    eos: Tensor
    found: Decoded
    chances: Tensor
    cache: Cache
    alive: Tensor
    attention: Tensor
    position: Tensor
    token: Tensor
    column: Tensor
    number: Tensor

    @classmethod
    def first(cls, model: Any, output: Callable[[Tensor], Tensor], request: Request, begun: Begun) -> Step:
        """After the first token, which the prompts' own logits give."""
        rows, width = begun.attention.shape
        device, columns = begun.attention.device, width + request.max_new_tokens
        column = torch.full((1,), width, dtype=torch.long, device=device)
        ahead = begun.attention.new_zeros(rows, request.max_new_tokens)
        step = cls(
            model=model,
            output=output,
            sampling=request.sampling,
            eos=request.eos,
            found=Decoded.empty(request),
            chances=request.chances,
            cache=fixed_cache(begun.cache, columns, column),
            alive=torch.arange(rows, device=device),
            attention=torch.cat([begun.attention, ahead], 1),
            position=positions(begun.attention)[:, -1:] + 1,
            token=torch.zeros(rows, 1, dtype=torch.long, device=device),
            column=column,
            number=torch.zeros(1, dtype=torch.long, device=device),
        )
        step.drawn(begun.logits)
        return step

    def drawn(self, logits: Tensor) -> None:
        token, logprob = draw(
            logits.float() / self.sampling.temperature, self.sampling, self.chances[self.alive, self.number]
        )
        self.found.put(self.number, self.alive, token, logprob, self.eos)
        self.token.copy_(token[:, None])
        self.number.add_(1)

    def logits(self) -> Tensor:
        """Of the token after `token`, which is read."""
        self.attention.index_fill_(1, self.column, 1)
        hidden = read(self.model.base_model, self.token, self.attention, self.position, self.cache)[:, -1]
        logits: Tensor = self.output(hidden.contiguous())
        self.position.add_(1)
        self.column.add_(1)
        return logits

    def select(self, rows: Tensor) -> None:
        for layer in self.cache.layers:
            assert isinstance(layer, FixedLayer)
            layer.select(rows)
        self.alive, self.attention = self.alive[rows], self.attention[rows]
        self.position, self.token = self.position[rows], self.token[rows]


def advance(step: Step) -> None:
    """One token of every row."""
    step.drawn(step.logits())


class Captured:
    """`advance` as a CUDA graph: captured after a token by itself, in which libraries make what they need, then launched whole."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = False

    def __call__(self) -> None:
        if not self._warm:
            advance(self._step)
            self._warm = True
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph, capture_error_mode="thread_local"
            ):  # what other threads do is their own affair
                advance(self._step)
            self._graph = graph
        self._graph.replay()


def by_compiler(step: Step) -> Callable[[], None]:
    """On a CPU. What is drawn from the logits is left out: little work, which each setting of a sampling would compile anew."""
    compiled = torch.compile(Step.logits)
    return lambda: step.drawn(compiled(step))


class Compiled:
    """What `loop` tries first. What fails is said once, and not tried again. `way`: compiled, or auto, which does so where it pays."""

    def __init__(self, way: str, device: torch.device) -> None:
        self._captures = device.type == "cuda"
        self._forced = way == "compiled"
        self._least = 1 if self._forced else LEAST_TOKENS
        self.works = way == "compiled" or (way == "auto" and self._captures)
        self._checked = False

    def __call__(self, model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded | None:
        """None where a token has to be looked at, or too few are asked for, or this does not work."""
        if not self.works or request.watch or request.max_new_tokens < self._least:
            return None
        try:
            return self._decoded(model, output, request)
        except AlignbenchError:
            raise
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                if self._forced:
                    raise
                torch.cuda.empty_cache()  # a second cache and the graph's own memory are what a step by itself does not take
            self.works = False
            why = (
                str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {pretrained.one_line(error)}"
            )
            log.warning(
                "%s is decoded step by step, as by model.decode=eager: a compiled step does not work (%s).",
                type(model).__name__,
                why,
            )
            return None

    def _decoded(self, model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
        begun = begin(model, output, request)
        step = Step.first(model, output, request, begun)
        if not self._checked:
            self._check(step, begun)
        del begun  # its cache was copied
        run = self._made(step)
        for number in range(1, request.max_new_tokens):
            if number % LOOK_EVERY == 0:
                going = still_going(step.found, step.alive)
                if not going:
                    break
                if self._captures and going <= EVICT_AT * len(step.alive):
                    step.select(first_going(step.found, step.alive, going))
                    run = self._made(step)
            run()
        still_going(step.found, step.alive)
        return step.found

    def _made(self, step: Step) -> Callable[[], None]:
        return Captured(step) if self._captures else by_compiler(step)

    def _check(self, step: Step, begun: Begun) -> None:
        """The first token that is read gives the logits that it gives with a cache that grows: not every model reads a mask of columns
        that are yet to come, or a number that is a tensor, as it should."""
        attention = torch.cat([begun.attention, begun.attention.new_ones(len(step.alive), 1)], 1)
        hidden = read(step.model.base_model, step.token, attention, step.position, begun.cache)[:, -1]
        right = step.output(hidden.contiguous()).float()
        position, column, ahead = step.position.clone(), step.column.clone(), step.attention.clone()
        found = step.logits().float()
        step.position.copy_(position), step.column.copy_(column), step.attention.copy_(ahead)
        spread = right - right.mean(-1, keepdim=True)
        far = float((found - right).norm() / spread.norm().clamp(min=1e-30))
        if not far <= FAR.get(step.model.dtype, FAR[torch.bfloat16]):
            raise UnfitError(f"with a cache of fixed size its logits are {far:.2g} apart, relative to their spread")
        self._checked = True


class Loop(Sampler):
    """This package's own decoding as a component: compiled where `model.decode` says so and it works, else `loop`."""

    def __init__(self, config: LoopConfig, *, policy: Policy | None) -> None:
        self.compiled = Compiled(getattr(policy, "decode", "eager"), policy.device) if policy else None

    @torch.no_grad()
    def sample(self, model: Any, output: Callable[[Tensor], Tensor], request: Request) -> Decoded:
        found = self.compiled(model, output, request) if self.compiled else None
        return loop(model, output, request) if found is None else found
