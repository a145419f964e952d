"""A checkpoint under evaluation as a model of lm-eval: the same questions, the same tokens, the policy's own fast generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from alignbench import Message, Prompt, Sampling, Subject, UserError

MAX_GEN_TOKS = 256
"""What lm-eval's `hf` model generates at most where a task does not say."""


class SubjectLM(LM):
    """Gives the numbers of `lm_eval --model hf --apply_chat_template` on the same weights.

    A subject is asked prompts made of messages, while lm-eval hands over the text that it had the chat template make of them:
    the messages of each such text are remembered."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._subject, self._tokenizer = subject, subject.tokenizer
        self._messages: dict[str, tuple[Message, ...]] = {}

    @property
    def tokenizer_name(self) -> str:
        return str(self._tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return str(self._tokenizer.chat_template)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        text = self._render(chat_history, add_generation_prompt)
        # Where the answer has begun, what has been said of it is scored or continued, and is no message to answer.
        asked = chat_history if add_generation_prompt else chat_history[:-1]
        self._messages[text] = tuple(Message(turn["role"], turn["content"]) for turn in asked)
        return text

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        # The same question may stand in several documents: it is asked once.
        asked: dict[tuple[str, str], tuple[Prompt, list[int], int]] = {}
        for request in requests:
            context, continuation = request.args[:2]
            if (context, continuation) not in asked:
                prompt = self._prompt(request)
                before = self._render(_turns(prompt.messages), True)
                asked[context, continuation] = (prompt, *self._pair(before, context, continuation))
        prompts, responses, counted = zip(*asked.values(), strict=True)
        found = self._subject.likelihoods(prompts, responses, counted)
        answers = {key: (each.logprob, each.greedy) for key, each in zip(asked, found, strict=True)}
        return [answers[request.args[0], request.args[1]] for request in requests]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        # A sampled request comes once for each of its repeats, which are asked for together.
        texts: dict[int, list[str]] = {}
        repeats = Counter(id(request) for request in requests)
        alike: dict[tuple[str, int], list[Instance]] = {}
        for request in {id(request): request for request in requests}.values():
            alike.setdefault((repr(request.args[1]), repeats[id(request)]), []).append(request)
        for (_, n), group in alike.items():
            settings = dict(normalize_gen_kwargs(group[0].args[1], MAX_GEN_TOKS))
            prompts = [self._prompt(request, generated=True) for request in group]
            given = self._subject.complete(prompts, n, _sampling(settings, group[0]))
            for i, request in enumerate(group):
                texts[id(request)] = [
                    postprocess_generated_text(g.response, settings["until"], None) for g in given[i * n : (i + 1) * n]
                ]
        return [texts[id(request)].pop(0) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> NoReturn:
        raise UserError(
            f"The task {requests[0].task_name} measures the perplexity of whole texts, which is not asked of a chat model: "
            "leave it out of eval.tasks, and run it by lm_eval."
        )

    def _prompt(self, request: Instance, generated: bool = False) -> Prompt:
        context = request.args[0]
        messages = self._messages.get(context)
        if messages is None or (generated and self._render(_turns(messages), True) != context):
            raise UserError(
                f"The task {request.task_name} asks what is no prompt made by the chat template, or begins the answer "
                "itself: leave it out of eval.tasks, and run it by lm_eval."
            )
        return Prompt(f"{request.task_name}/{request.doc_id}", messages)

    def _pair(self, before: str, context: str, continuation: str) -> tuple[list[int], int]:
        """The response as token ids, and how many of the last tokens of prompt and response are scored.

        As lm-eval's TemplateLM._encode_pair: white space at the end of the context (the newline after the template's last
        tag, say) belongs to what is scored. Where the continuation's beginning would merge with the prompt's last token, the
        prompt stays as the model knows it and the continuation alone is scored."""
        prompt, whole = self._ids(before), self._ids(context + continuation)
        if whole[: len(prompt)] != prompt:
            response = self._ids((context + continuation)[len(before) :])
            return response, len(response)
        return whole[len(prompt) :], len(whole) - len(self._ids(context.rstrip()))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, turns: Sequence[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


def _sampling(settings: dict[str, Any], request: Instance) -> Sampling:
    length = int(settings["max_gen_toks"])
    if not settings["do_sample"]:
        return Sampling(top_k=1, max_new_tokens=length)
    known = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
    if unknown := sorted(settings.keys() - known):
        raise UserError(f"The task {request.task_name} samples with {', '.join(unknown)}, which is not supported.")
    return Sampling(
        temperature=float(settings.get("temperature") or 1.0),
        top_p=float(settings.get("top_p", 1.0)),
        top_k=int(settings.get("top_k", 0)),
        max_new_tokens=length,
    )
