"""What a simulator shows, made once: samples of the SFT model with all that is known of each, and what trained checkpoints said to
the same prompts. With it a browser needs no server."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignbench.contracts import Annotator, RewardSource
from alignbench.errors import UserError
from alignbench.evaluation.respond import given_samples
from alignbench.page.simulator import columns
from alignbench.page.simulator.starts import Start
from alignbench.page.simulator.world import Named, World, checkpoint, load, reward_label
from alignbench.plugins import registry
from alignbench.records import REFERENCE, Prompt, Samples, Sampling, Split
from alignbench.results.disk.directory import GENERATIONS
from alignbench.results.disk.runs import StoredRun
from alignbench.scoring import checked_scores
from alignbench.selection import digest, package_digest
from alignbench.store.artifacts import Store, Write, cache_root
from alignbench.store.keys import core_digest

VERSION = 2
QUESTIONS, SAMPLES = 15, 512
OF_PRETRAINED = (4, 64)
"""The same where every response takes long."""
MOST_CHECKPOINTS = 12
_FILE = "pool.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Responses:
    """Different responses to one prompt, and how often each was drawn."""

    samples: Samples
    counts: list[int]


def pool(start: Start, say: Say = lambda text: None) -> dict[str, Any]:
    """From the cache where it was made before, for the same weights and runs."""
    runs = [run.path.name for run in start.runs[:MOST_CHECKPOINTS]]
    store = Store(cache_root(""), "the simulator", say)

    def make() -> Write:
        made = json.dumps(_made(load(start), say), allow_nan=False)
        return lambda folder: (folder / _FILE).write_text(made, encoding="utf-8")

    def read(folder: Path, made_by: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return found

    packages = sorted({c.target.partition(":")[0].partition(".")[0] for c in registry().components.values()})
    code = [core_digest(), *(package_digest(package) for package in packages)]
    return store.once("simulator", digest(VERSION, code, QUESTIONS, SAMPLES, start.key, runs), make, read)


def _made(world: World, say: Say) -> dict[str, Any]:
    if not world.annotators and not world.rewards:
        raise UserError(
            f"The runs of {world.start.label} have no reward, and no annotator tells what it wants: there is nothing to simulate. "
            "Train one with a reward, as algo=ppo."
        )
    questions, n = OF_PRETRAINED if world.policy.pretrained else (QUESTIONS, SAMPLES)
    prompts = _prompts(world, questions)
    rng = world.seeds.child("simulator").torch("samples")
    asked = []
    for number, prompt in enumerate(prompts, 1):
        say(f"sampling the SFT model: prompt {number} of {len(prompts)}")
        asked.append(respond(world, prompt, n, rng))
    say("reading what the checkpoints said")
    checkpoints = [
        found for run in world.start.runs[:MOST_CHECKPOINTS] if (found := measured_checkpoint(world, run, prompts))
    ]
    return {
        "label": world.start.label,
        "key": world.start.key,
        "samples": n,
        "prompts": [{"id": p.id, "text": p.text, "opinion": p.opinion.value if p.opinion else None} for p in prompts],
        "annotators": [_annotator(named, someone, asked) for named, someone in world.annotators],
        "rewards": [{"name": named.name, "label": named.label} for named, _ in world.rewards],
        "pool": measured(world, asked),
        "checkpoints": checkpoints,
    }


def _prompts(world: World, questions: int) -> list[Prompt]:
    """Whole questions, evenly from those that the latest run was asked, else from all that are held out: the same question without an
    opinion and with one stays together."""
    held_out = world.data.prompts(Split.EVALUATION)
    answered = {line.get("prompt") for line in _lines(world.start.runs[0].path / GENERATIONS)}
    clusters: dict[str, list[Prompt]] = {}
    for prompt in [p for p in held_out if p.id in answered] or held_out:
        clusters.setdefault(prompt.cluster or prompt.id, []).append(prompt)
    names = list(clusters)
    step = max(len(names) / questions, 1.0)
    return [p for i in range(min(questions, len(names))) for p in clusters[names[int(i * step)]]]


def respond(world: World, prompt: Prompt, n: int, rng: torch.Generator) -> Responses:
    """Draws n responses of the SFT model to one prompt."""
    drawn = world.policy.generate([prompt], Sampling(), n=n, role=REFERENCE, rng=rng).samples
    first: dict[tuple[str, bool], int] = {}
    counts: dict[int, int] = {}
    for row, said in enumerate(zip(drawn.texts, drawn.finished.tolist(), strict=True)):
        place = first.setdefault(said, row)
        counts[place] = counts.get(place, 0) + 1
    return Responses(drawn.select(torch.tensor(list(counts))), list(counts.values()))


def measured(world: World, asked: Sequence[Responses]) -> dict[str, Any]:
    """Columns over all different responses, prompt by prompt; `sizes` says how many each prompt has."""
    found = [_measured(world, responses.samples) for responses in asked]
    rows = {name: [value for part in found for value in part[name]] for name in found[0]}
    texts = rows.pop("text")
    return {
        "sizes": [len(responses.counts) for responses in asked],
        "counts": columns.counts([count for responses in asked for count in responses.counts]),
        "texts": texts,
        "columns": {name: columns.numbers(values) for name, values in rows.items()},
    }


def _measured(world: World, samples: Samples) -> dict[str, list[Any]]:
    with torch.no_grad():
        logprobs = world.policy.logprobs(samples.sequences, role=REFERENCE).logprobs.sum(1).tolist()
    return {
        "text": list(samples.texts),
        "length": samples.sequences.response_mask.sum(1).tolist(),
        "logprob": logprobs,
        **_known(world, samples),
    }


def _known(world: World, samples: Samples) -> dict[str, list[float]]:
    """What the data says of responses, the features of the annotators, and every reward."""
    rows = list(zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True))
    verdicts = [world.data.judge(prompt, text, finished=ended) for prompt, text, ended in rows]
    found = {
        "gold": [v.gold_reward if v else math.nan for v in verdicts],
        "correct": [_or_nan(v.correct if v else None) for v in verdicts],
        "agrees": [_or_nan(v.agrees if v else None) for v in verdicts],
    }
    if world.annotators:
        someone = world.annotators[0][1]
        features = [someone.features(prompt, text, finished=ended) for prompt, text, ended in rows]
        for place, column in enumerate(zip(*features, strict=True)):
            found[f"feature{place}"] = [float(value) for value in column]
    for named, source in world.rewards:
        found[named.name] = _scores(source, samples)
    return found


def _scores(source: RewardSource, samples: Samples) -> list[float]:
    found: list[float] = checked_scores(source, samples).tolist()
    return found


def _or_nan(value: bool | None) -> float:
    return math.nan if value is None else float(value)


def _annotator(named: Named, someone: Annotator, asked: Sequence[Responses]) -> dict[str, Any]:
    terms = [
        {"setting": t.setting, "label": t.label, "weight": t.weight, "low": t.low, "high": t.high}
        for t in someone.utility_terms()
    ]
    return {"name": named.name, "label": named.label, "terms": terms, "noise": _noise(someone, asked)}


def _noise(someone: Annotator, asked: Sequence[Responses]) -> float:
    """The scale of a Bradley-Terry annotator's noise, from its probabilities: log-odds are differences of utility over it. 1 where
    it knows none."""
    weights = [term.weight for term in someone.utility_terms()]
    for responses in asked:
        rows = list(
            zip(responses.samples.prompts, responses.samples.texts, responses.samples.finished.tolist(), strict=True)
        )
        prompt, first, ended = rows[0]
        for _, text, end in rows[1:]:
            one, other = (someone.features(prompt, said, finished=e) for said, e in ((first, ended), (text, end)))
            gap = sum(w * (a - b) for w, a, b in zip(weights, one, other, strict=True))
            p = someone.preference(prompt, first, text, finished=(ended, end))
            if p is not None and gap and 1e-6 < p < 1 - 1e-6:
                return gap / math.log(p / (1 - p))
    return 1.0


def measured_checkpoint(world: World, run: StoredRun, prompts: Sequence[Prompt]) -> dict[str, Any] | None:
    """What a run said to these prompts when it was evaluated, with each token's log pi / pi_sft under its weights."""
    known = {prompt.id: prompt for prompt in prompts}
    lines = [line for line in _lines(run.path / GENERATIONS) if line.get("prompt") in known]
    shared = [line for line in lines if isinstance(line.get("logprob"), float)]
    if not shared:
        return None
    asked = [known[line["prompt"]] for line in shared]
    tokens = world.policy.response_tokens([line["response"] for line in shared], [line["finished"] for line in shared])
    samples = given_samples(world.policy, asked, tokens)
    with torch.no_grad():
        world.policy.load(checkpoint(run))
        own = world.policy.logprobs(samples.sequences).logprobs
        ratios = own - world.policy.logprobs(samples.sequences, role=REFERENCE).logprobs
    who = run.record.identity
    best = "candidates" in run.settings or any(name.startswith("optimization/kl_bound") for name in run.record.metrics)
    places = {prompt.id: place for place, prompt in enumerate(prompts)}
    rows = _known(world, samples)
    return {
        "run": run.path.name,
        "label": _label(run),
        "algo": who.algo,
        "annotator": who.annotator,
        "reward": next((n.name for n, _ in world.rewards if n.label == reward_label(run)), None),
        # As it was measured: a token that is no text is not among those that are read again here.
        "kl": None if best else math.fsum(line["logprob"] - line["ref_logprob"] for line in shared) / len(shared),
        "bound": run.record.metrics["optimization/kl_bound"].value if best else None,
        "prompts": columns.counts([places[prompt.id] for prompt in asked]),
        "texts": list(samples.texts),
        "tokens": [
            [[piece, round(ratio, 2)] for piece, ratio in zip(_pieces(world, row), values, strict=False)]
            for row, values in zip(tokens, ratios.tolist(), strict=True)
        ],
        "length": columns.counts(samples.sequences.response_mask.sum(1).tolist()),
        "columns": {name: columns.numbers(values) for name, values in rows.items()},
    }


def _label(run: StoredRun) -> str:
    """The algorithm, who ranked, and its own coefficient where it has one."""
    who, settings = run.record.identity, run.settings
    shown = [f"{name} {settings[f'algo.{name}']:g}" for name in ("kl_coef", "beta", "n") if f"algo.{name}" in settings]
    return ", ".join([who.algo_label or who.algo, *([who.annotator] if who.annotator else []), *shown[:1]])


def _pieces(world: World, row: Sequence[int]) -> list[str]:
    """The text of each token as it appears in the whole."""
    texts = world.policy.response_texts([row[: end + 1] for end in range(len(row))])
    return [after.removeprefix(before) for before, after in zip(("", *texts), texts, strict=False)]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
