"""Checks of samplers: on a Llama of a few hundred weights, whose next token is known in full."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.contracts.sampler import Sampler
from alignbench.errors import UserError
from alignbench.plugins import Component
from alignbench.records import Sampling
from alignbench.records.decoding import Decoded, Request
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken

VOCABULARY, PAD = 12, 0
ENDS = (1, 2, 3)
ROWS, LONGEST, NEW = 24, 5, 12
DRAWS, FAR = 4000, 0.05
TOLERANCE = 1e-3

check = CheckList()


@dataclass(frozen=True)
class Trial:
    """A sampler, and the model that it samples from. `prompt_ids` and `prompt_mask` [ROWS, LONGEST], of many lengths."""

    sampler: Sampler
    model: Any
    prompt_ids: Tensor
    prompt_mask: Tensor
    chances: Tensor

    def request(self, sampling: Sampling, rows: slice = slice(None), **changes: Any) -> Request:
        asked = Request(
            self.prompt_ids[rows],
            self.prompt_mask[rows],
            sampling,
            NEW,
            torch.tensor(ENDS),
            PAD,
            self.chances[rows],
        )
        return dataclasses.replace(asked, **changes)

    def sample(self, request: Request) -> Decoded:
        with torch.no_grad():
            return self.sampler.sample(self.model, self.model.lm_head, request)

    def next_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, T, V]: of the token after each, read in one pass."""
        position = (mask.long().cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask.long(), position_ids=position).logits
        return logits.float()


def trial(component: Component, seed: int) -> Trial:
    """Raises NotApplicable where the sampler reads no model, or cannot be built here."""
    from transformers import LlamaConfig, LlamaForCausalLM

    try:
        sampler: Sampler = component.load()(component.config(), policy=None)
    except UserError as error:
        raise NotApplicable(f"it cannot be built here: {error}") from error
    if not sampler.reads_model:
        raise NotApplicable("a program of its own samples, which holds another model than the kit's")
    rng = Seeds(seed).torch("sampler")
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        attn_implementation="eager",
        pad_token_id=PAD,
        eos_token_id=list(ENDS),
    )
    model = LlamaForCausalLM(shape).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=rng) * (0.4 if weights.ndim > 1 else 0.1))
        for name, weights in model.named_parameters():
            if "norm" in name:
                weights.add_(1.0)
    lengths = torch.randint(1, LONGEST + 1, (ROWS,), generator=rng)
    mask = torch.arange(LONGEST)[None] >= LONGEST - lengths[:, None]
    ids = torch.randint(len(ENDS) + 1, VOCABULARY, (ROWS, LONGEST), generator=rng).masked_fill(~mask, PAD)
    return Trial(sampler, model, ids, mask, torch.rand(ROWS, NEW, generator=rng, dtype=torch.float64))


@check(
    causes="a row that goes on after its end, a mask that leaves the EOS out, or one of several EOS that is not known."
)
def responses_end_at_their_first_eos(component: Component, seed: int) -> None:
    """A response ends with its first EOS, which counts as its own, or at max_new_tokens; `finished` says which."""
    made = trial(component, seed)
    found = made.sample(made.request(Sampling()))
    if not bool(found.finished.any()) or bool(found.finished.all()):
        raise NotApplicable("all rows of this seed ended alike: try another --seed")
    for row in range(ROWS):
        mask, ids = found.mask[row].bool().tolist(), found.ids[row].tolist()
        length = sum(mask)
        ended = [ids[step] in ENDS for step in range(length)]
        if not 0 < length <= NEW or mask != [step < length for step in range(len(mask))]:
            raise PropertyBroken(f"Row {row}: its mask is {mask}.")
        if any(ended[:-1]) or ended[-1] != bool(found.finished[row]) or not (ended[-1] or length == NEW):
            raise PropertyBroken(
                f"Row {row}: tokens {ids[:length]}, of which {ENDS} are EOS; finished is {bool(found.finished[row])}."
            )


@check(
    causes="logits before they are divided by the temperature, after top_p, or of a text whose padding was read.",
    within=f"{TOLERANCE:g} nats",
)
def logprobs_are_the_models_own(component: Component, seed: int) -> str:
    """The log-probability of each token is that of logits / temperature, before top_k and top_p, as one pass over the text gives it."""
    made, worst = trial(component, seed), 0.0
    for sampling in (Sampling(), Sampling(temperature=0.6, top_p=0.8), Sampling(temperature=1.7, top_k=4)):
        found = made.sample(made.request(sampling))
        ids = torch.cat([made.prompt_ids, found.ids[:, :NEW]], 1)
        mask = torch.cat([made.prompt_mask, found.mask[:, :NEW].bool()], 1)
        logits = made.next_logits(ids, mask)[:, LONGEST - 1 : -1] / sampling.temperature
        own = logits.log_softmax(-1).gather(-1, found.ids[:, :NEW, None]).squeeze(-1)
        off = float(((found.logprobs[:, :NEW] - own) * found.mask[:, :NEW]).abs().max())
        if not off <= TOLERANCE:
            raise PropertyBroken(f"{sampling}: a log-probability is off by {off:.3g} nats.")
        worst = max(worst, off)
    return f"off by {worst:.1g} nats, of at most {TOLERANCE:g}"


@check(causes="a generator of its own, or chances that are taken by a row's place in the batch and not by the row.")
def the_same_chances_give_the_same_responses(component: Component, seed: int) -> None:
    """A row's tokens follow from its prompt and its chances alone, whatever rows it is decoded with."""
    made = trial(component, seed)
    whole = made.sample(made.request(Sampling()))
    for rows in (slice(None), slice(3, 9), slice(ROWS - 1, ROWS)):
        part = made.sample(made.request(Sampling(), rows))
        if not torch.equal(part.ids[part.mask.bool()], whole.ids[rows][whole.mask[rows].bool()]):
            raise PropertyBroken(f"Rows {rows.start or 0} to {rows.stop or ROWS} have other tokens when asked again.")


@check(
    causes="a distribution that is made narrower or wider, or chances that are read as something else than uniform.",
    within=f"total variation {FAR:g}",
)
def draws_from_the_models_distribution(component: Component, seed: int) -> str:
    """Over many chances, the first token has the model's own frequencies."""
    made = trial(component, seed)
    chances = torch.rand(DRAWS, 1, generator=Seeds(seed).torch("chances"), dtype=torch.float64)
    ids, mask = made.prompt_ids[:1].expand(DRAWS, -1), made.prompt_mask[:1].expand(DRAWS, -1)
    found = made.sample(made.request(Sampling(), prompt_ids=ids, prompt_mask=mask, chances=chances, max_new_tokens=1))
    own = made.next_logits(ids[:1], mask[:1])[0, -1].softmax(-1)
    seen = torch.bincount(found.ids[:, 0], minlength=VOCABULARY) / DRAWS
    if not (far := float(0.5 * (own - seen).abs().sum())) <= FAR:
        raise PropertyBroken(f"The first token of {DRAWS} responses is {far:.3g} away from the model's distribution.")
    return f"total variation {far:.2g}, of at most {FAR:g}"


@check(causes="request.sampling that is not read.")
def top_k_of_one_is_greedy(component: Component, seed: int) -> None:
    """With top_k=1 each token is the likeliest, whatever the chances."""
    made = trial(component, seed)
    found = made.sample(made.request(Sampling(top_k=1)))
    wanted = made.next_logits(made.prompt_ids, made.prompt_mask)[:, -1].argmax(-1)
    if not torch.equal(found.ids[:, 0], wanted):
        raise PropertyBroken(f"{int((found.ids[:, 0] != wanted).sum())} of {ROWS} rows begin with another token.")


@check(causes="`watch` that is not called, or not after the last token.")
def whoever_watches_is_told(component: Component, seed: int) -> None:
    """`watch` is told what there is so far, at last the whole."""
    made, told = trial(component, seed), list[Tensor]()
    found = made.sample(made.request(Sampling(), watch=lambda so_far: told.append(so_far.ids * so_far.mask)))
    if not told or not torch.equal(told[-1], found.ids * found.mask):
        raise PropertyBroken(f"It told {len(told)} times, and at last not what it returned.")
