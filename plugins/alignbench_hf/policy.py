"""The Policy contract on a transformers model: tokens, sampling, log-probabilities, roles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignbench import (
    POLICY,
    REFERENCE,
    Decoded,
    Exported,
    Policy,
    Prompt,
    Request,
    Rollout,
    Sampler,
    Samples,
    Sampling,
    ScalarRole,
    Sequences,
    TokenScores,
    UserError,
    Watch,
    expand,
    functional,
)
from alignbench_hf.architecture.output import Measured, OutputLayer, measured, measured_kl, without
from alignbench_hf.architecture.trunk import text_config, window
from alignbench_hf.chat.tokens import Chat, pad, token_ids
from alignbench_hf.checkpoint.base_file import check_base, write_base
from alignbench_hf.config import PolicyConfig
from alignbench_hf.decoding.mixed import mixed
from alignbench_hf.engine.contract import Engine
from alignbench_hf.engine.sampler import EngineSampler
from alignbench_hf.export import (
    COMPARED_TOKENS,
    differences,
    generation_config,
    load_plain,
    save_plain,
    tolerance,
)
from alignbench_hf.memory import half
from alignbench_hf.prompts import pieces, states
from alignbench_hf.roles import VALUE, Model, Roles
from alignbench_hf.scalar import HEADS, HFScalarRole
from alignbench_hf.sharding import gather_output

MERGE = "model.merge_adapters=false"


class HFPolicy(Policy):
    """A causal language model and its roles. Prompts are formatted by the tokenizer's chat template."""

    def __init__(
        self,
        config: PolicyConfig,
        roles: Roles,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pretrained: bool,
        device: torch.device,
        fingerprint: str = "",
        chat: Chat | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._chat = chat or Chat(tokenizer)
        self.tokenizer, self.device, self.pretrained = tokenizer, device, pretrained
        self.max_prompt_tokens, self.max_response_tokens = config.max_prompt_tokens, config.max_response_tokens
        self._config, self._roles, self._fingerprint = config, roles, fingerprint
        self._scalars: dict[str, HFScalarRole] = {}
        self._suppressed = token_ids(self._chat, config.suppress_tokens).to(device)
        self._window = window(roles.use(POLICY))
        # Processes that keep in step put each layer together as the host comes to it.
        self.decode = "eager" if getattr(config, "shard", False) else config.decode
        self._engine = EngineSampler(engine, roles, self._suppressed) if engine else None
        self._sampler: Sampler = config.uses()[0].build(policy=self)
        self.mixes_reference = self._engine is None and self._sampler.reads_model

    # --- tokens ---

    def fingerprint(self) -> str:
        by = f"-vllm-{self._engine.version}" if self._engine else ""
        return f"{self._fingerprint}-{self._chat.fingerprint()}{by}" if self._fingerprint else ""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        return self._chat.ends

    @property
    def window(self) -> int:
        return self._window or super().window

    def prompt_tokens(self, prompt: Prompt) -> int:
        return len(self._chat.prompt(prompt))

    def _pad_prompts(self, prompts: Sequence[Prompt], new_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Within the limit of training, or within what the window leaves beside `new_tokens`."""
        limit = self.max_prompt_tokens if new_tokens is None else self.window - new_tokens
        bound = "model.max_prompt_tokens is" if new_tokens is None else f"beside {new_tokens} new ones the window holds"
        rows = [self._chat.prompt(prompt) for prompt in prompts]
        for prompt, row in zip(prompts, rows, strict=True):
            if len(row) > limit:
                raise UserError(
                    f"Prompt {prompt.id!r} has {len(row)} tokens, {bound} {limit}: raise the limit or shorten the prompt."
                )
        return pad(rows, self.tokenizer.pad_token_id, self.device, left=True)

    def encode(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Sequence[bool] | None = None
    ) -> Samples:
        ended = [True] * len(responses) if finished is None else list(finished)
        rows = self.response_tokens(responses, ended)
        cut = [row[: self.max_response_tokens] for row in rows]
        response_ids, response_mask = pad(cut, self.tokenizer.pad_token_id, self.device, left=False)
        whole = torch.tensor(
            [end and len(row) <= self.max_response_tokens for row, end in zip(rows, ended, strict=True)]
        )
        sequences = Sequences(*self._pad_prompts(prompts), response_ids, response_mask)
        return Samples(tuple(prompts), tuple(responses), sequences, whole.to(self.device))

    def response_tokens(self, responses: Sequence[str], finished: Sequence[bool]) -> list[list[int]]:
        return self._chat.responses(responses, finished)

    def response_texts(self, rows: Sequence[Sequence[int]]) -> tuple[str, ...]:
        return self._chat.texts(rows)

    def given(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[int]]) -> Sequences:
        response_ids, response_mask = pad(responses, self.tokenizer.pad_token_id, self.device, left=False)
        return Sequences(*self._pad_prompts(prompts, response_ids.shape[1]), response_ids, response_mask)

    # --- sampling ---

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, n: int = 1, role: str = POLICY, rng: torch.Generator
    ) -> Rollout:
        return self._generate(prompts, sampling, None, n, role, rng)

    def generate_watched(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        watch: Watch,
        *,
        n: int = 1,
        role: str = POLICY,
        rng: torch.Generator,
    ) -> Rollout:
        return self._generate(prompts, sampling, watch, n, role, rng)

    def _generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        watch: Watch | None,
        n: int,
        role: str,
        rng: torch.Generator,
    ) -> Rollout:
        rows = expand(prompts, n)
        prompt_ids, prompt_mask = self._pad_prompts(rows, sampling.max_new_tokens)
        limit = sampling.max_new_tokens or self.max_response_tokens
        # Drawn where the generator lives, the CPU: the same seed gives the same chances on every device.
        chances = torch.rand(len(rows), limit, generator=rng, dtype=torch.float64, device=rng.device).to(self.device)
        # Longest prompts first: rows of one batch then have about the same length and share little padding.
        order = prompt_mask.sum(1).argsort(descending=True, stable=True)
        ids = torch.zeros((len(rows), limit), dtype=torch.long, device=self.device)
        parts = Decoded(ids, ids.clone(), torch.zeros(ids.shape, device=self.device), ids[:, 0].clone())

        def put(piece: Tensor, decoded: Decoded) -> None:
            parts.ids[piece], parts.mask[piece] = decoded.ids, decoded.mask.long()
            parts.logprobs[piece], parts.finished[piece] = decoded.logprobs, decoded.finished.long()

        def told(piece: Tensor, decoded: Decoded) -> None:
            assert watch is not None, "nobody else is told"
            put(piece, decoded)
            watch([row[:end] for row, end in zip(parts.ids.tolist(), parts.mask.sum(1).tolist(), strict=True)])

        size = len(rows) if self._engine else self._config.generation_batch_size  # an engine makes its own batches
        with (
            functional.within_memory(
                f"sampling {size} responses at once", half("model.generation_batch_size", size), MERGE
            ),
            torch.no_grad(),
            self._sampling(role, mixes=sampling.reference_share > 0) as sample,
        ):
            for piece in functional.passes(order, size):
                width = int(prompt_mask[piece].sum(1).max())
                request = Request(
                    prompt_ids[piece, -width:],
                    prompt_mask[piece, -width:],
                    sampling,
                    max_new_tokens=limit,
                    eos=torch.tensor(self._chat.ends, device=self.device),
                    pad=self.tokenizer.pad_token_id,
                    chances=chances[piece],
                    share_prompts=self._roles.share_prompts,
                    start_within=self._roles.sharing.start_within,
                    watch=partial(told, piece) if watch else None,
                    role=role,
                )
                put(piece, sample(request))
        if functional.idles(len(rows)):
            for found in (parts.ids, parts.mask, parts.logprobs, parts.finished):
                found.zero_()
        functional.add_up(parts.ids, parts.mask, parts.logprobs, parts.finished)
        mask = parts.mask.bool()
        keep = max(int(mask.sum(1).max()), 1)
        ids = parts.ids.masked_fill(~mask, self.tokenizer.pad_token_id)
        sequences = Sequences(prompt_ids, prompt_mask, ids[:, :keep], mask[:, :keep])
        samples = Samples(rows, self._texts(sequences), sequences, parts.finished.bool())
        rollout = Rollout(samples, parts.logprobs[:, :keep], sampling.temperature)
        return self._engine.rollout(rollout, sampling, partial(self.logprobs, role=role)) if self._engine else rollout

    @contextlib.contextmanager
    def _sampling(self, role: str, *, mixes: bool) -> Iterator[Callable[[Request], Decoded]]:
        """The one place where it is decided who samples. Adapters are merged where one role alone is sampled from the model."""
        if mixes:
            if not self.mixes_reference:
                raise UserError(
                    f"model.sampler={self._config.sampler} has no mixture of two roles: use model.sampler=loop."
                )
            with self._roles.computing():
                yield partial(mixed, self._roles.use, self._output)
            return
        if self._engine or not self._sampler.reads_model:
            yield self._engine or partial(self._sampler.sample, None, None)
            return
        with self._roles.sampling(role) as model, self._roles.computing():
            yield partial(self._sampler.sample, model, self._output(model))

    def _texts(self, sequences: Sequences) -> tuple[str, ...]:
        lengths = sequences.response_mask.sum(1).tolist()
        return self._chat.texts([row[:end] for row, end in zip(sequences.response_ids.tolist(), lengths, strict=True)])

    # --- log-probabilities ---

    def _states(self, role: str, sequences: Sequences) -> tuple[Tensor, nn.Module]:
        """Hidden states before each response token and after the last, [B, R + 1, H], and the output layer."""
        model, rows = self._roles.use(role), len(sequences)
        if torch.is_grad_enabled():
            ways = half("micro_batch_size", rows), "model.gradient_checkpointing=true"
        else:
            ways = half("model.scoring_batch_size", rows), "model.quantization=nf4"
        with functional.within_memory(f"the {role}'s pass over {rows} rows", *ways), self._roles.passing():
            hidden = states(
                model.base_model,
                sequences,
                share=self._roles.share_prompts,
                start_within=self._roles.sharing.start_within,
            )
        return hidden, self._output(model)

    def _pieces(self, sequences: Sequences) -> Iterator[Tensor]:
        return pieces(sequences, self._config.scoring_batch_size, share=self._roles.share_prompts)

    def _output(self, model: Model) -> nn.Module:
        """From the states of a role's model to logits, without the suppressed tokens."""
        gather_output(model)
        return OutputLayer(model, self._suppressed)

    def logprobs(
        self,
        sequences: Sequences,
        *,
        role: str = POLICY,
        temperature: float = 1.0,
        entropy: bool = False,
        greedy: bool = False,
    ) -> TokenScores:
        fields = ["logprobs"] + ["entropy"] * entropy + ["greedy"] * greedy
        measure = partial(measured, self._states, fields, role=role, temperature=temperature)
        found = self._whole(sequences, measure, fields, learns=role == POLICY)
        return TokenScores(found.logprobs, found.entropy, found.greedy)

    def logprobs_and_values(
        self, sequences: Sequences, value: ScalarRole, *, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[TokenScores, Tensor]:
        if not (value.reads_policy and isinstance(value, HFScalarRole)):
            return super().logprobs_and_values(sequences, value, temperature=temperature, entropy=entropy)
        fields = ["logprobs"] + ["entropy"] * entropy + ["values"]
        measure = partial(measured, self._states, fields, role=POLICY, temperature=temperature, value=value)
        found = self._whole(sequences, measure, fields, learns=True)
        assert found.values is not None, "asked for"
        return TokenScores(found.logprobs, found.entropy), found.values

    def logprobs_and_reference_kl(
        self, sequences: Sequences, *, temperature: float = 1.0
    ) -> tuple[TokenScores, Tensor]:
        measure = partial(measured_kl, self._roles.use, self._states, temperature=temperature)
        found = self._whole(sequences, measure, ["logprobs", "reference_kl"], learns=True)
        assert found.reference_kl is not None, "asked for"
        return TokenScores(found.logprobs), found.reference_kl

    def _whole(
        self, sequences: Sequences, measure: Callable[[Sequences], Measured], fields: Sequence[str], *, learns: bool
    ) -> Measured:
        """`measure` of all rows: in one pass where gradients are wanted, else in pieces."""
        if learns and torch.is_grad_enabled():
            return measure(sequences)
        rows, width = sequences.response_ids.shape
        whole = {name: torch.zeros(rows, width + (name == "values"), device=self.device) for name in fields}
        with torch.no_grad():
            for piece in self._pieces(sequences):
                part = measure(sequences.select(piece))
                for name, tensor in whole.items():
                    own = getattr(part, name)
                    tensor[piece, : own.shape[1]] = own.float() * (not functional.idles(rows))
        functional.add_up(*whole.values())
        return Measured(**{name: tensor.bool() if name == "greedy" else tensor for name, tensor in whole.items()})

    # --- roles ---

    def freeze_reference(self) -> None:
        self._roles.add(REFERENCE, POLICY, trainable=False)

    def scalar(self, name: str, *, init_from: str = POLICY) -> ScalarRole:
        if name in (POLICY, REFERENCE) or name in self._scalars:
            raise UserError(f"The scalar role {name!r} exists already.")
        head = HEADS[self._config.scalar_head](text_config(self._roles.use(POLICY)).hidden_size).to(self.device)
        trunk, base = name, {}
        if name == VALUE and self._config.value_trunk == "shared":
            trunk = POLICY
        else:
            self._roles.add(name, init_from, trainable=True)
            base = self._roles.named_parameters(name)
        if init_from in self._scalars:  # on a shared trunk too: what it reads there is near what the other role reads
            head.load_state_dict(self._scalars[init_from].head.state_dict())
        own = HFScalarRole(partial(self._states, trunk), base, head, self._pieces, reads_policy=trunk == POLICY)
        return self._scalars.setdefault(name, own)

    def scalars(self) -> tuple[str, ...]:
        return tuple(self._scalars)

    def trainable(self) -> list[nn.Parameter]:
        return list(self._roles.named_parameters(POLICY).values())

    def as_transformers(self, role: str = POLICY) -> PreTrainedModel:
        return without(self._roles.lend(role), self._suppressed)

    # --- saving ---

    def save(self, directory: Path) -> Path:
        path = self._roles.save(directory)
        self.tokenizer.save_pretrained(path)
        write_base(path, self._fingerprint)
        return path

    def load(self, path: Path) -> None:
        check_base(path, self._fingerprint)
        self._chat.check_saved(path)
        self._roles.load(path)

    def export(self, directory: Path, *, merged: bool, prompts: Sequence[Prompt]) -> Exported:
        limit = Sampling(max_new_tokens=min(self.max_response_tokens, COMPARED_TOKENS))
        samples = self.generate(prompts, limit, rng=torch.Generator().manual_seed(0)).samples
        expected = self.logprobs(samples.sequences).logprobs
        if merged:
            save_plain(self._roles.plain(), self._chat, directory)
        else:
            self._roles.save_adapter(directory)
        self.tokenizer.save_pretrained(directory)
        generation_config(self._chat, self._suppressed).save_pretrained(directory)
        loaded = load_plain(directory, self.device) if merged else self._roles.with_adapter(directory)
        apart = differences(loaded, directory, samples, expected)
        return Exported(
            mean=float(apart.mean()),
            largest=float(apart.max()),
            tolerance=tolerance(self._roles.use(POLICY), loaded),
            tokens=len(apart),
            notes=self._roles.notes(merged=merged),
        )
