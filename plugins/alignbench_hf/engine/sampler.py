"""A sampler that has an engine sample: sends the adapters that changed, asks row by row, gives what the decoding loop gives."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from alignbench import POLICY, AlignbenchError, Decoded, Request, Rollout, Sampling, TokenScores, UserError, functional
from alignbench_hf.engine.contract import AdapterUnknown, Answer, Engine, Question
from alignbench_hf.roles import Roles

CHECKED_ROWS = 8
FOREIGN = 0.5  # nats a token on average: rounding, of weights to four bits too, is far below it
_SENT_AGAIN = 5  # times in a row that an engine may have forgotten an adapter
_SEEDS = 2**31


class EngineSampler:
    """Called with a `Request`, as the decoding loop is with a model too.

    The engine draws by its own random numbers: of a row's chances the first alone is used, as the seed of the row's request. What it
    says of its tokens is not what a training pass says, so that its rollouts are off-policy (`Rollout.off_policy`)."""

    def __init__(self, engine: Engine, roles: Roles, suppressed: Tensor) -> None:
        self._engine, self._roles, self._suppressed = engine, roles, tuple(suppressed.tolist())
        self._vocabulary = int(roles.use(POLICY).get_input_embeddings().num_embeddings)
        self._folder = tempfile.TemporaryDirectory(prefix="alignbench-adapters-")  # readable by this user alone
        self._sent: dict[
            str, tuple[str, str]
        ] = {}  # of each role: the weights' digest, and the adapter's name at the engine
        self._count, self._known = 0, False  # known: to serve this model
        weakref.finalize(self, _let_go, engine, self._sent)

    @property
    def version(self) -> str:
        return self._engine.version

    def __call__(self, request: Request) -> Decoded:
        questions = [
            Question(
                tuple(row[kept].tolist()),
                int(chance * _SEEDS),
                request.sampling,
                request.max_new_tokens,
                tuple(request.eos.tolist()),
                self._suppressed,
            )
            for row, kept, chance in zip(
                request.prompt_ids, request.prompt_mask.bool(), request.chances[:, 0].tolist(), strict=True
            )
        ]
        for _ in range(_SENT_AGAIN + 1):
            name = self._send(request.role)
            try:
                answers = self._engine.sample(name, questions)
            except (
                AdapterUnknown
            ):  # started anew, it has the base alone; what was sampled is sampled again, from the same seeds
                self._forget()
                continue
            if any(token >= self._vocabulary for answer in answers for token in answer.ids):
                raise UserError(
                    f"{self._engine.where} gave tokens that the model does not have: it serves another model."
                )
            found = decoded(answers, request)
            if request.watch:
                request.watch(found)
            return found
        raise UserError(f"{self._engine.where} forgot its adapters {_SENT_AGAIN} times in one rollout: see its log.")

    def rollout(self, found: Rollout, sampling: Sampling, score: Callable[..., TokenScores]) -> Rollout:
        """What was sampled, as the contract has it. `score`: what the model itself says of tokens.

        An engine's log-probabilities of tokens drawn by top-k or top-p are those of the cut distribution: there the model's own are
        taken. Elsewhere the first rollout shows whether the engine serves this model at all."""
        sequences = found.samples.sequences
        with torch.no_grad():
            if sampling.top_k > 0 or sampling.top_p < 1:
                return replace(
                    found, logprobs=score(sequences, temperature=sampling.temperature).logprobs, off_policy=True
                )
            if not self._known:
                few = sequences.select(slice(0, CHECKED_ROWS))
                told = found.logprobs[:CHECKED_ROWS, : few.response_ids.shape[1]]
                self._check_gap(told, score(few, temperature=sampling.temperature).logprobs, few.response_mask)
                self._known = True
        return replace(found, off_policy=True)

    def _check_gap(self, told: Tensor, own: Tensor, mask: Tensor) -> None:
        gap = float(functional.masked_mean((told - own).abs(), mask))
        if not gap <= FOREIGN:
            raise UserError(
                f"{self._engine.where} gives log-probabilities that are {gap:.3g} nats a token away from the model's own on average: it "
                "serves another model than model.path, or another revision of it."
            )

    def _send(self, role: str) -> str:
        """The name under which the engine has the role's adapter as it stands. Sent under a new one when its weights have changed: an
        engine keeps what it computed for a prompt by an adapter's name."""
        weights = self._roles.adapter(role)
        digest = digest_of(weights)
        known, name = self._sent.get(role, ("", ""))
        if digest == known:
            return name
        self._count += 1
        new = f"{Path(self._folder.name).name}-{role}-{self._count}"
        folder = Path(self._folder.name) / new
        self._roles.write_adapter(role, folder)
        self._engine.load(new, folder)
        self._sent[role] = (digest, new)
        if name:
            self._engine.unload(name)
            shutil.rmtree(folder.parent / name, ignore_errors=True)
        return new

    def _forget(self) -> None:
        for _, name in self._sent.values():
            shutil.rmtree(Path(self._folder.name) / name, ignore_errors=True)
        self._sent.clear()


def digest_of(weights: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()


def decoded(answers: list[Answer], request: Request) -> Decoded:
    """Cut at the first end, as the decoding loop's responses are."""
    found, ends = Decoded.empty(request), set(request.eos.tolist())
    if len(answers) != len(found.ids):
        raise AlignbenchError(f"The engine gave {len(answers)} responses to {len(found.ids)} questions.")
    for row, answer in enumerate(answers):
        last = next((i for i, token in enumerate(answer.ids) if token in ends), len(answer.ids) - 1)
        ids = torch.tensor(answer.ids[: last + 1])
        found.ids[row, : last + 1], found.mask[row, : last + 1] = ids.to(found.ids), True
        found.logprobs[row, : last + 1] = torch.tensor(answer.logprobs[: last + 1]).to(found.logprobs)
        found.finished[row] = answer.ids[last] in ends
    functional.require_finite("the engine's log-probabilities", found.logprobs)
    return found


def _let_go(engine: Engine, sent: Mapping[str, tuple[str, str]]) -> None:
    """Leaves nothing behind at an engine that goes on."""
    for _, name in sent.values():
        engine.unload(name)
