"""A policy that is a table of logits, for every prompt and every beginning of a response: small enough to enumerate.

It keeps the whole contract of `Policy` and shares no code with policies made of transformers, so that an algorithm is
judged by its own mathematics. Where the contract leaves a number undefined, the table returns garbage.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from alignbench.contracts import Policy, ScalarRole
from alignbench.errors import UserError, unknown_name
from alignbench.records import POLICY, REFERENCE, Prompt, Rollout, Samples, Sampling, Sequences, TokenScores, expand
from alignbench.records.source import Source
from alignbench.seeds import Seeds
from alignbench.testing.checks import NotApplicable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD, EOS = 0, 1
LETTERS = ("a", "b", "c")
VOCABULARY = ("<pad>", "<eos>", *LETTERS)
ACTIONS = len(VOCABULARY) - 1  # the padding token is never sampled: token `id` is action `id - 1`
GARBAGE = 1e4
"""What scalar roles return beyond a response: large, so that a mask that is missing shows."""


class LetterTokenizer:
    """What optimizers and evaluations may ask of a tokenizer: one token a letter, separated by spaces."""

    pad_token, eos_token = VOCABULARY[PAD], VOCABULARY[EOS]
    pad_token_id, eos_token_id = PAD, EOS
    all_special_ids = (PAD, EOS)

    def __len__(self) -> int:
        return len(VOCABULARY)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [VOCABULARY.index(word) for word in text.split()]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        kept = (int(i) for i in ids)
        return " ".join(VOCABULARY[i] for i in kept if not (skip_special_tokens and i in self.all_special_ids))

    def batch_decode(self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = True) -> list[str]:
        return [self.decode(row, skip_special_tokens) for row in rows]

    def __call__(self, text: str | Sequence[str], add_special_tokens: bool = False) -> dict[str, Any]:
        many = self.encode(text) if isinstance(text, str) else [self.encode(one) for one in text]
        return {"input_ids": many}


class TabularScalar(ScalarRole):
    """One number for every prompt and every beginning of a response, finished responses included. One that reads the policy adds
    TRUNK times the logits there."""

    def __init__(self, policy: TabularPolicy, name: str, table: Tensor) -> None:
        self._policy, self.name, self.reads_policy = policy, name, policy.shares_trunk
        self.table = torch.nn.Parameter(table)

    def values(self, sequences: Sequences) -> Tensor:
        prompts, states = self._policy.states(sequences)
        lengths = sequences.response_mask.sum(1, keepdim=True)
        columns = torch.arange(states.shape[1])[None]
        undefined = GARBAGE * (1.0 + columns) * torch.where(prompts % 2 == 0, 1.0, -1.0)[:, None]
        table = self.table + trunk_values(self._policy.logits, self.table) if self.reads_policy else self.table
        values = torch.where(columns <= lengths, table[prompts[:, None], states], undefined)
        if self._policy._value_listener is not None and values.requires_grad:
            self._policy._value_listener(sequences)
        return self._policy.watched(self.name, values)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.table]

    def rescale(self, shift: float, scale: float) -> None:
        with torch.no_grad():
            self.table.sub_(shift).div_(scale)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        torch.save({"table": self.table.detach()}, path / "scalar.pt")

    def load(self, path: Path) -> None:
        with torch.no_grad():
            self.table.copy_(torch.load(path / "scalar.pt", weights_only=True)["table"])


TRUNK = (0.4, -0.3, 0.2, 0.1)


def trunk_values(logits: Tensor, table: Tensor) -> Tensor:
    """What the policy's states add to a scalar role that reads them, like `table`; nothing after a whole response."""
    read = logits @ torch.tensor(TRUNK, dtype=logits.dtype)
    return torch.nn.functional.pad(read, (0, table.shape[1] - read.shape[1]))


class TabularPolicy(Policy):
    """Logits [prompts, states, actions]. A state is a beginning of a response: the nodes of a tree with a branch for
    each action, numbered level by level; node s leads to ACTIONS * s + 1 + action.

    `prompts` are all that it knows; their texts are letters separated by spaces. `spread` is the standard deviation
    of the logits, drawn from `seeds`."""

    pretrained = True
    mixes_reference = True
    device = torch.device("cpu")
    max_prompt_tokens = 8
    shares_trunk = False
    """Whether scalar roles that are made from now on read the policy's own states."""
    listener: Callable[[Sequences], None] | None = None
    """Is told which responses the policy's log-probabilities are asked of with gradients."""
    _value_listener: Callable[[Sequences], None] | None = None  # the same of its scalar roles

    def __init__(
        self, prompts: Sequence[Prompt], *, seeds: Seeds, max_response_tokens: int = 3, spread: float = 0.7
    ) -> None:
        self.tokenizer = cast("PreTrainedTokenizerBase", LetterTokenizer())
        self.max_response_tokens = max_response_tokens
        self._codes = {_code(self._prompt_ids(prompt)): row for row, prompt in enumerate(prompts)}
        shape = (len(prompts), self._nodes(max_response_tokens), ACTIONS)
        self.logits = torch.nn.Parameter(spread * torch.randn(shape, generator=seeds.torch("logits")))
        self._reference: Tensor | None = None
        self._scalars: dict[str, TabularScalar] = {}
        self._asked: list[str] = []
        self.out_of_turn = ""

    def as_transformers(self, role: str = POLICY) -> PreTrainedModel:
        raise NotApplicable("it trains a model of transformers, and the kit's policy is a table")

    @staticmethod
    def _nodes(levels: int) -> int:
        return sum(ACTIONS**level for level in range(levels))

    def completions(self) -> tuple[tuple[int, ...], ...]:
        """Every response there is: those that end with EOS, shortest first, and those cut at the limit."""
        letters = range(EOS + 1, len(VOCABULARY))
        limit = self.max_response_tokens
        ended = [(*w, EOS) for size in range(limit) for w in itertools.product(letters, repeat=size)]
        return (*ended, *itertools.product(letters, repeat=limit))

    # Tokens

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        words = [word for message in prompt.messages for word in message.content.split()]
        if not words or len(words) > self.max_prompt_tokens:
            raise UserError(
                f"Prompt {prompt.id!r} has {len(words)} tokens: a tabular policy takes 1 to {self.max_prompt_tokens}."
            )
        return [_token(word, prompt) for word in words]

    def prompt_tokens(self, prompt: Prompt) -> int:
        return sum(len(message.content.split()) for message in prompt.messages)

    def encode(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Sequence[bool] | None = None
    ) -> Samples:
        rows = []
        for prompt, text, ended in zip(prompts, responses, finished or [True] * len(prompts), strict=True):
            ids = [_token(word, prompt) for word in text.split()] + [EOS] * ended
            rows.append(tuple(ids[: self.max_response_tokens]))
        return self.samples(prompts, rows)

    def samples(self, prompts: Sequence[Prompt], rows: Sequence[tuple[int, ...]]) -> Samples:
        """Given responses, as token ids with their EOS."""
        _, prompt_ids, prompt_mask = self._shown(prompts)
        width = max((len(row) for row in rows), default=1) or 1
        response_ids = torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])
        response_mask = torch.arange(width)[None] < torch.tensor([len(row) for row in rows])[:, None]
        finished = (response_ids == EOS).any(1)
        sequences = Sequences(prompt_ids, prompt_mask, response_ids, response_mask)
        return Samples(tuple(prompts), tuple(_text(row) for row in rows), sequences, finished)

    def _shown(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
        """The row of the table of each prompt, and the prompts' tokens and mask, padded on the left."""
        known = {prompt.id: self._prompt_ids(prompt) for prompt in {p.id: p for p in prompts}.values()}
        width = max(len(ids) for ids in known.values())
        number = {name: i for i, name in enumerate(known)}
        which = torch.tensor([number[prompt.id] for prompt in prompts])
        ids = torch.tensor([[PAD] * (width - len(row)) + row for row in known.values()])[which]
        rows = torch.tensor([self._codes[_code(row)] for row in known.values()])[which]
        return rows, ids, ids != PAD

    def states(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """The row of the table of each prompt, [B], and the state before each response token and after the last one,
        [B, R + 1]. What stands at padding is not looked at; states there are 0."""
        mask = sequences.prompt_mask.long()
        place = mask.flip(1).cumsum(1).flip(1) - 1
        digits = len(VOCABULARY) ** place.clamp(min=0) * sequences.prompt_ids * mask
        codes = digits.sum(1, keepdim=True)
        known = codes == torch.tensor(list(self._codes))[None]
        if not bool(known.any(1).all()):
            raise UserError("The prompt tokens within prompt_mask are of no prompt that this policy knows.")
        prompts = known.long().argmax(1)
        states = torch.zeros(len(sequences), sequences.response_ids.shape[1] + 1, dtype=torch.long)
        actions, inside = self.actions(sequences), sequences.response_mask.bool()
        for t in range(inside.shape[1]):
            following = ACTIONS * states[:, t] + 1 + actions[:, t]
            states[:, t + 1] = torch.where(inside[:, t], following, 0)
        if bool((sequences.response_mask.sum(1) > self.max_response_tokens).any()):
            raise UserError(f"response_mask covers more than the {self.max_response_tokens} tokens of a response.")
        return prompts, states

    def actions(self, sequences: Sequences) -> Tensor:
        """[B, R]: of each response token its column in `logits`; 0 where masked."""
        return torch.where(sequences.response_mask.bool(), sequences.response_ids - 1, 0).clamp(0, ACTIONS - 1)

    # Sampling and scoring

    def _table(self, role: str) -> Tensor:
        if role == POLICY:
            return self.logits
        if role != REFERENCE:
            raise unknown_name("role", role, (POLICY, REFERENCE))
        if self._reference is None:
            raise UserError("The reference is undefined before freeze_reference() is called.")
        return self._reference

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, n: int = 1, role: str = POLICY, rng: torch.Generator
    ) -> Rollout:
        if sampling.top_p != 1 or sampling.top_k != 0:
            raise UserError("A tabular policy samples with top_p=1 and top_k=0.")
        asked = expand(prompts, n)
        rows, prompt_ids, prompt_mask = self._shown(asked)
        table = self.mixture(Source(role, sampling.reference_share), sampling.temperature)
        probabilities = table.exp()[rows]
        state = torch.zeros(len(asked), dtype=torch.long)
        ended = torch.zeros(len(asked), dtype=torch.bool)
        drawn = []
        for _ in range(min(sampling.max_new_tokens or self.max_response_tokens, self.max_response_tokens)):
            action = torch.multinomial(probabilities[torch.arange(len(asked)), state], 1, generator=rng).squeeze(1)
            drawn.append(torch.where(ended, PAD, action + 1))
            ended = ended | (action == EOS - 1)
            state = torch.where(ended, 0, ACTIONS * state + 1 + action)
        response_ids = torch.stack(drawn, 1)
        response_mask = response_ids != PAD
        width = int(response_mask.sum(1).max())
        sequences = Sequences(prompt_ids, prompt_mask, response_ids[:, :width], response_mask[:, :width])
        texts = tuple(_text(tuple(row)) for row in response_ids.tolist())
        samples = Samples(asked, texts, sequences, ended)
        return Rollout(samples, self._read(table, samples.sequences), sampling.temperature)

    def mixture(self, source: Source, temperature: float) -> Tensor:
        """Log-probabilities like `logits`, without gradient: of whom the source names."""
        own, share = self._table(source.role).detach(), source.reference_share
        logits = (1 - share) * own + share * self._table(REFERENCE) if share else own
        return torch.log_softmax(logits / temperature, -1)

    def drawn_logprobs(self, sequences: Sequences, source: Source, temperature: float) -> Tensor:
        """[B, R]: of the response tokens as the source draws them, 0 beyond them."""
        return self._read(self.mixture(source, temperature), sequences)

    def _read(self, table: Tensor, sequences: Sequences) -> Tensor:
        prompts, states = self.states(sequences)
        inside = sequences.response_mask.bool()
        where = (prompts[:, None], torch.where(inside, states[:, :-1], 0), self.actions(sequences))
        return torch.where(inside, table[where], 0.0)

    def logprobs(
        self,
        sequences: Sequences,
        *,
        role: str = POLICY,
        temperature: float = 1.0,
        entropy: bool = False,
        greedy: bool = False,
    ) -> TokenScores:
        prompts, states = self.states(sequences)
        inside = sequences.response_mask.bool()
        table = torch.log_softmax(self._table(role) / temperature, -1)
        where = (prompts[:, None], torch.where(inside, states[:, :-1], 0))
        chosen = self.watched(role, torch.where(inside, table[(*where, self.actions(sequences))], 0.0))
        if self.listener is not None and role == POLICY and chosen.requires_grad:
            self.listener(sequences)
        with torch.no_grad():
            spread = -(table.exp() * table).sum(-1)[where] * inside
            likeliest = (chosen == table.max(-1).values[where]) & inside
        return TokenScores(chosen, spread if entropy else None, likeliest if greedy else None)

    def logprobs_and_reference_kl(
        self, sequences: Sequences, *, temperature: float = 1.0
    ) -> tuple[TokenScores, Tensor]:
        scores = self.logprobs(sequences, temperature=temperature)
        prompts, states = self.states(sequences)
        inside = sequences.response_mask.bool()
        reference, own = (torch.log_softmax(self._table(role) / temperature, -1) for role in (REFERENCE, POLICY))
        spent = (reference.exp() * (reference - own)).sum(-1)
        kl = torch.where(inside, spent[prompts[:, None], torch.where(inside, states[:, :-1], 0)], 0.0)
        return scores, self.watched(POLICY, kl)

    def watched(self, role: str, result: Tensor) -> Tensor:
        """Notes in `out_of_turn` where another role was asked for with gradients before this result's backward pass:
        roles may be adapters on one base, and the pass then runs through the wrong one."""
        if result.requires_grad:
            self._asked.append(role)
            since = len(self._asked)

            def backward(gradient: Tensor) -> None:
                if others := [name for name in self._asked[since:] if name != role]:
                    self.out_of_turn = f"{others[0]!r} before the backward pass of {role!r}"

            result.register_hook(backward)
        return result

    # Roles and files

    def freeze_reference(self) -> None:
        self._reference = self.logits.detach().clone()

    def scalar(self, name: str, *, init_from: str = POLICY) -> TabularScalar:
        if name in self._scalars:
            raise UserError(f"There is a scalar role {name!r} already.")
        if init_from == POLICY:
            table = torch.zeros(self.logits.shape[0], self._nodes(self.max_response_tokens + 1))
        elif init_from in self._scalars:
            table = self._scalars[init_from].table.detach().clone()
        else:
            raise unknown_name("scalar role", init_from, (POLICY, *self._scalars))
        self._scalars[name] = TabularScalar(self, name, table)
        return self._scalars[name]

    def scalars(self) -> tuple[str, ...]:
        return tuple(self._scalars)

    def role(self, name: str) -> TabularScalar:
        """A scalar role that exists."""
        return self._scalars[name]

    def scale_logits(self, factor: float) -> None:
        """Multiplies the logits of policy and reference."""
        with torch.no_grad():
            self.logits.mul_(factor)
        self._reference = self._table(REFERENCE) * factor

    def trainable(self) -> list[torch.nn.Parameter]:
        return [self.logits]

    def save(self, directory: Path) -> Path:
        path = directory / "model"
        path.mkdir(parents=True, exist_ok=True)
        torch.save({"logits": self.logits.detach()}, path / "table.pt")
        return path

    def load(self, path: Path) -> None:
        with torch.no_grad():
            self.logits.copy_(torch.load(path / "table.pt", weights_only=True)["logits"])

    def clone(self) -> TabularPolicy:
        """A copy that shares nothing: weights, reference and scalar roles."""
        return copy.deepcopy(self)


@functools.cache
def _text(ids: tuple[int, ...]) -> str:
    return " ".join(VOCABULARY[i] for i in ids if i > EOS)


def _token(word: str, prompt: Prompt) -> int:
    if word not in LETTERS:
        raise UserError(f"Prompt {prompt.id!r}: a tabular policy reads the letters {', '.join(LETTERS)}, not {word!r}.")
    return VOCABULARY.index(word)


def _code(ids: Sequence[int]) -> int:
    """A prompt's tokens as one number, the last token the lowest digit."""
    return sum(token * len(VOCABULARY) ** place for place, token in enumerate(reversed(ids)))


def disguise(sequences: Sequences, *, left: int = 0, right: int = 0, rng: torch.Generator | None = None) -> Sequences:
    """The same prompts and responses with more columns of padding on either side and, with `rng`, random tokens at
    every place that the masks leave out: nothing that honours the masks can tell the difference."""

    def pad(values: Tensor, before: int, after: int) -> Tensor:
        return torch.nn.functional.pad(values.long(), (before, after))

    prompt_mask, response_mask = pad(sequences.prompt_mask, left, 0), pad(sequences.response_mask, 0, right)
    prompt_ids, response_ids = pad(sequences.prompt_ids, left, 0), pad(sequences.response_ids, 0, right)
    if rng is not None:
        prompt_ids, response_ids = (
            torch.where(mask.bool(), ids, torch.randint(EOS, len(VOCABULARY), ids.shape, generator=rng))
            for ids, mask in ((prompt_ids, prompt_mask), (response_ids, response_mask))
        )
    kind, other = sequences.prompt_mask.dtype, sequences.response_mask.dtype
    return Sequences(prompt_ids, prompt_mask.to(kind), response_ids, response_mask.to(other))
