"""What a simulator shows, made once: responses of the SFT model with all that is known of each, and what trained checkpoints said to
the same prompts. With it a browser needs no server."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignbench.contracts import Annotator
from alignbench.page.simulator.checkpoints import compared, generations
from alignbench.page.simulator.responses import Responses, every_response, measured, respond
from alignbench.page.simulator.starts import Start
from alignbench.page.simulator.world import Named, World, judged_by, load
from alignbench.plugins import registry
from alignbench.records import Prompt, Split
from alignbench.selection import digest, package_digest
from alignbench.store.artifacts import Store, Write, cache_root
from alignbench.store.keys import core_digest

VERSION = 5
QUESTIONS, SAMPLES = 15, 512
OF_PRETRAINED = (4, 64)
"""The same where every response takes long."""
MOST_CHECKPOINTS = 12
_FILE = "pool.json"
Say = Callable[[str], None]


def pool(start: Start, say: Say = lambda text: None, read_world: Callable[[], World] | None = None) -> dict[str, Any]:
    """From the cache where it was made before, for the same weights and runs. `read_world`: where the world comes from if not; its
    policy ends with the weights of some run."""
    runs = [run.path.name for run in start.runs[:MOST_CHECKPOINTS]]
    store = Store(cache_root(""), "the simulator", say)

    def make() -> Write:
        made = json.dumps(_made(read_world() if read_world else load(start), say), allow_nan=False)
        return lambda folder: (folder / _FILE).write_text(made, encoding="utf-8")

    def read(folder: Path, made_by: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return found

    packages = sorted({c.target.partition(":")[0].partition(".")[0] for c in registry().components.values()})
    code = [core_digest(), *(package_digest(package) for package in packages)]
    return store.once(
        "simulator", digest(VERSION, code, QUESTIONS, SAMPLES, start.key, runs, judged_by(start)), make, read
    )


def _made(world: World, say: Say) -> dict[str, Any]:
    questions, n = OF_PRETRAINED if world.policy.pretrained else (QUESTIONS, SAMPLES)
    prompts = _prompts(world, questions)
    every = every_response(world.policy)
    rewards = [{"name": named.name, "label": named.label} for named, _ in world.rewards]
    if not world.annotators and not rewards and world.data.judge(prompts[0], "", finished=True) is not None:
        rewards = [{"name": "gold", "label": "the gold reward: the truth itself"}]
    rewarded = bool(world.annotators or rewards)  # else there is nothing to tilt by: models answer, and that is all
    asked = []
    rng = world.seeds.child("simulator").torch("samples")
    for number, prompt in enumerate(prompts if rewarded else (), 1):
        verb = "writing down every response" if every else f"{n} samples of the SFT model"
        say(f"{verb}: prompt {number} of {len(prompts)}")
        asked.append(respond(world, prompt, n, rng))
    say("reading what the checkpoints said")
    found = (compared(world, run, prompts, asked) for run in world.start.runs[:MOST_CHECKPOINTS])
    return {
        "label": world.start.label,
        "key": world.start.key,
        "samples": len(asked[0].samples) if every and asked else n,
        "exact": bool(every),
        "pretrained": world.policy.pretrained,
        "prompts": [{"id": p.id, "text": p.text, "opinion": p.opinion.value if p.opinion else None} for p in prompts],
        "annotators": [_annotator(named, someone, asked) for named, someone in world.annotators],
        "rewards": rewards,
        "gold": world.gold[0].label if world.gold else None,
        "pool": measured(world, asked) if rewarded else None,
        "checkpoints": [checkpoint for checkpoint in found if checkpoint],
    }


def _prompts(world: World, questions: int) -> list[Prompt]:
    """Whole questions, evenly from those that the latest run was asked, else from all that are held out: the same question without an
    opinion and with one stays together."""
    held_out = world.data.prompts(Split.EVALUATION)
    answered = {line.get("prompt") for line in generations(world.start.runs[0].path)}
    clusters: dict[str, list[Prompt]] = {}
    for prompt in [p for p in held_out if p.id in answered] or held_out:
        clusters.setdefault(prompt.cluster or prompt.id, []).append(prompt)
    names = list(clusters)
    step = max(len(names) / questions, 1.0)
    return [p for i in range(min(questions, len(names))) for p in clusters[names[int(i * step)]]]


def _annotator(named: Named, someone: Annotator, asked: Sequence[Responses]) -> dict[str, Any]:
    terms = [asdict(term) for term in someone.utility_terms()]
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
