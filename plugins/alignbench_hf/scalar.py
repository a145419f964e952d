"""Value and reward roles: one number for each state of a response, read off the base by a small head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignbench import ScalarRole, Sequences, functional, pretrained
from alignbench_hf.roles import require_same_weights

_FILE = "scalar.safetensors"
LOGPROB_FLOOR = -8.0  # nats; an unbounded sum of log-probabilities lets PPO run off into gibberish


class LinearHead(nn.Module):
    """A linear read-out of the state, started at zero."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.read = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(self, states: Tensor, output: nn.Module, sequences: Sequences) -> Tensor:
        """states [B, R + 1, H] -> [B, R + 1]."""
        return self.read(states.float()).squeeze(-1)

    @torch.no_grad()
    def rescale(self, shift: float, scale: float) -> None:
        """As in ScalarRole."""
        self.read.weight.div_(scale)
        self.read.bias.sub_(shift).div_(scale)


class EvidenceHead(LinearHead):
    """Adds what the base itself thinks of the tokens read so far: `v . h + c * sum_t softmax(g)_t logp_t`.

    A language model that knows a fact gives a false statement of it low probability at one token; the gate g learns
    which token that is. The weighted mean is bounded by LOGPROB_FLOOR. Before the first token it is what the base expects of that
    token, minus its entropy: with 0, as if it were certain, a value network would take every response to be better before it begins."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.gate = nn.Linear(hidden_size, 1)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, states: Tensor, output: nn.Module, sequences: Sequences) -> Tensor:
        logprobs = functional.token_logprobs(states[:, :-1], output, sequences.response_ids).logprobs
        gate = self.gate(states[:, 1:].float()).squeeze(-1)
        # A softmax for each prefix: scaled by one maximum of the row, later tokens would leak into earlier values.
        unread = torch.ones(gate.shape[1], gate.shape[1], dtype=torch.bool, device=gate.device).triu(1)
        weight = gate[:, None, :].masked_fill(unread, -torch.inf).softmax(-1)
        evidence = (weight @ logprobs.clamp(min=LOGPROB_FLOOR)[:, :, None]).squeeze(-1)
        evidence = torch.cat([_expected(states[:, :1], output), evidence], 1)
        return super().forward(states, output, sequences) + self.scale * evidence

    @torch.no_grad()
    def rescale(self, shift: float, scale: float) -> None:
        super().rescale(shift, scale)
        self.scale.div_(scale)


@torch.no_grad()
def _expected(states: Tensor, output: nn.Module) -> Tensor:
    """[B, 1]: the mean log-probability of the token that follows, within LOGPROB_FLOOR. It carries no gradient."""
    any_token = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
    entropy = functional.token_logprobs(states, output, any_token, entropy=True).entropy
    assert entropy is not None, "asked for"
    return entropy.neg().clamp(min=LOGPROB_FLOOR)


HEADS: dict[str, type[LinearHead]] = {"linear": LinearHead, "evidence": EvidenceHead}


class HFScalarRole(ScalarRole):
    """A scalar role of an HFPolicy. `run` maps sequences to (states [B, R + 1, H], output layer) as this role; `pieces`
    gives the rows of each pass without gradients; `reads_policy` as in ScalarRole."""

    def __init__(
        self,
        run: Callable[[Sequences], tuple[Tensor, nn.Module]],
        named_parameters: dict[str, nn.Parameter],
        head: LinearHead,
        pieces: Callable[[Sequences], Iterator[Tensor]],
        *,
        reads_policy: bool = False,
    ) -> None:
        self._run, self._base, self.head, self._pieces = run, named_parameters, head, pieces
        self.reads_policy = reads_policy

    def values(self, sequences: Sequences) -> Tensor:
        if torch.is_grad_enabled():
            return self._values(sequences)
        width = sequences.response_ids.shape[1] + 1
        result = torch.zeros(len(sequences), width, device=sequences.response_ids.device)
        for rows in self._pieces(sequences):
            part = self._values(sequences.select(rows))
            result[rows, : part.shape[1]] = part
        if functional.idles(len(sequences)):
            result.zero_()
        functional.add_up(result)
        return result

    def _values(self, sequences: Sequences) -> Tensor:
        states, output = self._run(sequences)
        values: Tensor = self.head(states, output, sequences)
        return values

    def parameters(self) -> list[nn.Parameter]:
        return [*self._base.values(), *self.head.parameters()]

    def rescale(self, shift: float, scale: float) -> None:
        self.head.rescale(shift, scale)

    def _named(self) -> dict[str, nn.Parameter]:
        return {**self._base, **{f"scalar_head.{name}": p for name, p in self.head.named_parameters()}}

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().contiguous() for name, p in self._named().items()}, path / _FILE)

    def load(self, path: Path) -> None:
        pretrained.require_file(path / _FILE)
        with pretrained.Checkpoint(path).reading():
            saved = load_file(path / _FILE)
        own = self._named()
        require_same_weights(saved, own, f"The scalar role in {path}")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(saved[name])
