"""Whether a model that has just been loaded computes here what it computes by itself: asked with a few tokens, and not by its name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alignbench import Sequences, UserError
from alignbench_hf.architecture.output import OutputLayer
from alignbench_hf.architecture.trunk import Sharing, first_pass, read, select_rows, text_config
from alignbench_hf.prompts import positions, prefill, states
from alignbench_hf.quantization import rounds_inputs

FAR = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""How far logits may be from the model's own, relative to what they say: what rounding in this type moves them by, with room to
spare. In the tests rounding stays under 1e-6 and 0.08, and reading another's padding or a token at a wrong place starts at 0.15."""
FAR_IN_EIGHT_BITS = 0.3  # where what layers read is rounded too, by the outliers of all rows (arXiv 2208.07339)
_ROW_OF_PROMPT, _START, _PROMPTS, _ANSWER = (0, 1, 1, 2), 2, (3, 4, 2), 3  # tokens that all begin with, then of each


def check_reading(model: Any, computing: Callable[[], AbstractContextManager[object]], sharing: Sharing) -> Sharing:
    """Compares log-probabilities and cached decoding, of padded rows that share prompts and leave the batch, with the model's own
    forward pass over each row alone. Raises UserError where they differ; where only sharing goes wrong, gives what of it goes
    right."""
    with first_pass(model), torch.no_grad(), computing():
        return _Probe(model).run(sharing)


class _Probe:
    def __init__(self, model: Any) -> None:
        self.model, self.trunk, self.kind = model, model.base_model, type(model).__name__
        device = next(model.parameters()).device
        self.output = OutputLayer(model, torch.zeros(0, dtype=torch.long, device=device))
        most = text_config(model).vocab_size
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randint(most, shape, generator=generator).to(device)  # noqa: E731
        start, prompts = draw(_START), [draw(length) for length in _PROMPTS]
        width = _START + max(_PROMPTS)
        ids, mask = (
            draw(len(_ROW_OF_PROMPT), width),
            torch.zeros(len(_ROW_OF_PROMPT), width, dtype=torch.bool, device=device),
        )
        for row, prompt in enumerate(_ROW_OF_PROMPT):
            asked = torch.cat([start, prompts[prompt]])
            ids[row, width - len(asked) :], mask[row, width - len(asked) :] = asked, True
        answers = draw(len(ids), _ANSWER)
        self.rows = Sequences(ids, mask, answers, torch.ones_like(answers, dtype=torch.bool))
        self.own = torch.stack([self._alone(row) for row in range(len(ids))])

    def _alone(self, row: int) -> Tensor:
        """Logits [A + 1, V] before each token of the answer and after the last, by the model's own forward."""
        prompt = self.rows.prompt_ids[row][self.rows.prompt_mask[row]]
        ids = torch.cat([prompt, self.rows.response_ids[row]])[None]
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
        if not bool(logits.isfinite().all()):
            raise UserError(
                f"{self.kind} gives logits that are NaN or infinite, though its weights are not: use model.dtype=float32 or bfloat16, "
                "and model.quantization=none."
            )
        return logits

    def run(self, sharing: Sharing) -> Sharing:
        apart, noise, most = Sharing(prompts=False), 0.0, self._most()
        for what, found in (("padded rows", self._scored(apart)), ("sampling", self._decoded(apart))):
            if not (far := self._far(found)) <= most:
                raise UserError(
                    f"{self.kind} cannot be trained here: its log-probabilities of {what} are not those of its own forward pass "
                    f"({far:.2g} apart, relative to their spread). It may place or mask tokens in a way that is not supported yet."
                )
            noise = max(noise, far)
        near = max(most / 5, 4 * noise)  # rows apart cost no more than time: sharing has to be surer
        for tried in (sharing, replace(sharing, start_within=0)):
            if tried.prompts and max(self._far(self._scored(tried)), self._far(self._decoded(tried))) <= near:
                return tried
        return apart

    def _scored(self, sharing: Sharing) -> Tensor:
        hidden = states(self.trunk, self.rows, share=sharing.prompts, start_within=sharing.start_within)
        return self.output(hidden).float()

    def _decoded(self, sharing: Sharing) -> Tensor:
        """As `loop` samples: all rows read their prompts, then one token each; a row leaves after the first."""
        ids, mask = self.rows.prompt_ids, self.rows.prompt_mask
        start = ids.shape[1] + _ANSWER <= sharing.start_within
        hidden, attention, cache = prefill(self.trunk, ids, mask, share=sharing.prompts, start=start)
        position, found = positions(attention)[:, -1:], [self.output(hidden)]
        keep = torch.arange(len(self.rows), device=attention.device)
        for step in range(_ANSWER):
            attention, position = torch.cat([attention, attention.new_ones(len(keep), 1)], 1), position + 1
            hidden = read(self.trunk, self.rows.response_ids[keep, step : step + 1], attention, position, cache)
            whole = self.own[:, step + 1].to(found[0].dtype).clone()  # of a row that has left, nothing is asked
            whole[keep] = self.output(hidden[:, -1])
            found.append(whole)
            if step == 0:
                left = torch.tensor([True, True, False, True], device=attention.device).nonzero().squeeze(1)
                select_rows(cache, left)
                keep, attention, position = keep[left], attention[left], position[left]
        return torch.stack(found, 1).float()

    def _most(self) -> float:
        return FAR_IN_EIGHT_BITS if rounds_inputs(self.model) else FAR.get(self.model.dtype, FAR[torch.bfloat16])

    def _far(self, found: Tensor) -> float:
        """From the model's own logits, relative to what these say."""
        spread = self.own - self.own.mean(-1, keepdim=True)
        apart = found - self.own
        return float((apart - apart.mean(-1, keepdim=True)).norm() / spread.norm().clamp(min=1e-30))
