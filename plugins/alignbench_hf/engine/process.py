"""vLLM in this process as an engine, where it is installed beside us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench import UserError
from alignbench_hf.config import require_vllm
from alignbench_hf.engine.contract import AdapterUnknown, Answer, Engine, Question, check_version

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM reserves room for


class InProcess(Engine):
    """`options` are those of vllm.LLM, beside what is said here."""

    where = "The engine in this process"

    def __init__(self, model: Path, *, dtype: str, rank: int, window: int, options: Mapping[str, Any]) -> None:
        require_vllm()
        try:
            import vllm
        except Exception as error:  # a library that does not fit fails in any way it likes
            raise UserError(
                f"The package vllm does not load here: {type(error).__name__}: {_first_line(error)}."
            ) from error
        self.version = str(vllm.__version__)
        check_version(self.version, self.where)
        if rank > _RANKS[-1]:
            raise UserError(f"vLLM takes adapters of rank {_RANKS[-1]} at most: lower model.lora_rank={rank}.")
        said = {
            "enable_lora": True,
            "max_lora_rank": next(r for r in _RANKS if r >= rank),
            "max_model_len": window,
            "dtype": dtype,
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",
            "seed": 0,
        }
        try:
            self._llm = vllm.LLM(model=str(model), **(said | dict(options)))
        except Exception as error:
            raise UserError(
                f"vLLM does not start: {_first_line(error)}. Its options are model.sampler_options."
            ) from error
        self._vllm = vllm
        self._adapters: dict[str, Any] = {}
        self._numbers = 0

    def load(self, name: str, folder: Path) -> None:
        from vllm.lora.request import LoRARequest

        self._numbers += 1
        self._adapters[name] = LoRARequest(name, self._numbers, str(folder))
        try:
            if not self._llm.llm_engine.add_lora(self._adapters[name]):
                raise ValueError("it was not taken")
        except Exception as error:
            del self._adapters[name]
            raise UserError(f"{self.where} does not take the adapter: {_first_line(error)}.") from error

    def unload(self, name: str) -> None:
        if adapter := self._adapters.pop(name, None):
            self._llm.llm_engine.remove_lora(adapter.lora_int_id)

    def sample(self, adapter: str, questions: Sequence[Question]) -> list[Answer]:
        if adapter not in self._adapters:
            raise AdapterUnknown(adapter)
        try:
            outputs = self._llm.generate(
                [self._vllm.TokensPrompt(prompt_token_ids=list(question.prompt)) for question in questions],
                [self._parameters(question) for question in questions],
                lora_request=self._adapters[adapter],
                use_tqdm=False,
            )
        except Exception as error:
            raise UserError(f"{self.where} failed to sample: {_first_line(error)}.") from error
        found = []
        for output in outputs:
            (one,) = output.outputs
            ids = tuple(one.token_ids)
            found.append(Answer(ids, tuple(at[i].logprob for at, i in zip(one.logprobs, ids, strict=True))))
        return found

    def _parameters(self, question: Question) -> Any:
        sampling = question.sampling
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=question.seed,
            max_tokens=question.max_new_tokens,
            ignore_eos=True,
            stop_token_ids=list(question.ends),
            logit_bias=dict.fromkeys(question.suppressed, -100.0) or None,
            logprobs=0,
            detokenize=False,
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:240]
