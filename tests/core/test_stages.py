"""Stages of one's own in a run: what they see, where they stand, what they change, and what names what comes after them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignbench import Constraint, Demonstration, Labelled, Message, Opinion, Prompt, Reference, Seeds, Split, UserError
from alignbench.app.compose import load_config
from alignbench.evaluation import stored
from alignbench.pipeline.added import kept
from alignbench.store import keys
from tests.core import added
from tests.core.harness import Command, Plugin, records
from tests.core.test_resume import stopped

ALL = "stages=[early,middle,late,held_out_accuracy]"


@pytest.fixture(autouse=True)
def nothing_called() -> Iterator[None]:
    added.CALLS.clear()
    yield


def saw(run: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "stages" / stage / "saw.json").read_text())
    return found


def runs(folder: Path) -> list[Path]:
    """In the order in which they began."""
    return sorted((folder / "runs").iterdir(), key=lambda path: path.stat().st_ctime)


def test_each_stands_in_its_place_sees_what_is_there_and_is_shared(
    small: Command, plugin: Plugin, tmp_path: Path
) -> None:
    done = small(ALL, "reward.updates=2")
    assert done.code == 0, done.err
    lines = [re.split(r"\s{2,}", line)[0] for line in done.err.splitlines() if re.search(r"\d s\b", line)]
    places = [lines.index(name) for name in ("stage early", "sft", "reward", "stage middle", "ppo", "stage late")]
    assert places == sorted(places)
    (run,) = runs(tmp_path)
    early, middle, late = (saw(run, stage) for stage in ("early", "middle", "late"))
    assert (early["prompts"], early["demonstrations"], early["rankings"], early["scores"]) == (100, 100, 0, False)
    for later in (middle, late):
        assert (later["rankings"], later["held_out"], later["scores"], later["demonstrations"]) == (18, 2, True, 0)
    assert (middle["moved"], late["moved"]) == (False, True), "the SFT model, and the trained policy"
    assert not any(found["gradients"] for found in (early, middle, late))
    record = records(run)[0]
    reports = record["reports"]
    assert {name: reports[f"stage/{name}/prompts"] for name in ("early", "middle", "late")} == dict.fromkeys(
        ("early", "middle", "late"), 100
    )
    assert reports["stage/held_out_accuracy/accuracy"] == pytest.approx(reports["reward/held_out_accuracy"])
    assert {"stage early", "stage late"} <= set(record["cost"]["seconds"])
    assert "fault: ''" in (run / "config.yaml").read_text(), "the options of what was chosen, defaults filled in"
    assert added.CALLS == ["before_sft", "after_reward", "after_algorithm"]

    shared = {path.name.partition("-")[0] for path in (tmp_path / "cache" / "stages").iterdir() if path.is_dir()}
    assert {"stage_early", "stage_middle"} <= shared and "stage_late" not in shared, "the last is this run's alone"

    other = small(ALL, "reward.updates=2", "algo.kl_coef=0.2")
    assert other.code == 0, other.err
    again = records(runs(tmp_path)[1])[0]
    before = {"stage early", "sft", "rankings", "reward", "stage middle", "stage held_out_accuracy"}
    assert set(again["reused"]) == before | {"evaluate sft", "frontier"}
    assert added.CALLS[3:] == ["after_algorithm"], "of another policy"
    assert (saw(runs(tmp_path)[1], "early"), saw(runs(tmp_path)[1], "middle")) == (early, middle)
    assert again["reports"]["stage/middle/prompts"] == 100

    third = small("stages=[early,middle]", "stage_options.middle.keep=1", "reward.updates=2")
    assert third.code == 2 and "middle" in third.errors[0] and "nobody reads after SFT" in third.errors[0]
    assert set(re.findall(r"^(\w[\w ]*?)  +reused", third.err, re.MULTILINE)) == {
        "stage early",
        "sft",
        "rankings",
        "reward",
    }


def test_a_stage_is_named_by_all_that_it_is_shown() -> None:
    """What is held out and what is labelled too: it may look at them."""
    world = load_config(["experiment=exact"]).data.build(seeds=Seeds(0))
    prompts = world.prompts(Split.EVALUATION)
    for changes in (
        {"prompts": lambda split: prompts[:-1]},
        {"labelled": lambda: (Labelled(prompts[0], "a", good=True),)},
    ):
        with pytest.MonkeyPatch.context() as patched:
            before = keys.of_set_aside(world)
            for name, found in changes.items():
                patched.setattr(world, name, found)
            assert keys.of_set_aside(world) != before


def test_other_stages_share_nothing_that_comes_after_them(small: Command, plugin: Plugin) -> None:
    options = ("algo=sft", "stages=[early]")
    assert small(*options).code == 0
    assert "reused" in small(*options, "resume=never").err
    done = small(*options, "stage_options.early.fault=x")
    assert done.code == 0 and "reused" not in done.err, "the stage gave the same, and is another"


def test_sft_imitates_what_a_stage_leaves(small: Command, plugin: Plugin) -> None:
    assert small("algo=sft", "stages=[early]", "stage_options.early.keep=1").code == 0
    steps = [step.batch.sequences.response_ids for step in plugin.heard.steps if step.stage == "sft" and step.batch]  # type: ignore[union-attr]
    assert len(steps) == 2
    assert all(len(ids) > 1 and ids.unique(dim=0).shape[0] == 1 for ids in steps), "one demonstration, again and again"


def test_a_run_that_goes_on_carries_out_no_stage_twice(
    small: Command, plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ("algo=dpo", "stages=[early,late]", "cache=false")
    assert stopped(small, plugin, "sft", 2, KeyboardInterrupt(), *chosen) == 130
    assert added.CALLS == ["before_sft"]
    save = stored.save

    def stop(found: Any, folder: Path) -> None:
        if folder.parent == tmp_path / "runs":  # the run's own evaluation, its last stage
            raise KeyboardInterrupt
        save(found, folder)

    with monkeypatch.context() as patch:
        patch.setattr(stored, "save", stop)
        assert small(*chosen).code == 130
    assert small(*chosen).code == 0
    assert added.CALLS == ["before_sft", "after_algorithm"]
    (run,) = runs(tmp_path)
    assert saw(run, "late")["moved"] and not (run / "checkpoint").exists()


# What is refused


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", "KeyError: 'of theirs'"),
        ("refuse", "the moon is full"),
        ("mapping", "gives a dict, not a StageResult"),
        ("nan", "its figure share is nan"),
        ("nothing", "of 100 demonstrations it leaves none"),
        ("leak", "1 of the demonstrations that it gives are of evaluation prompts"),
    ],
)
def test_what_goes_wrong_in_a_stage_is_one_line_that_names_it(
    fault: str, words: str, small: Command, plugin: Plugin, tmp_path: Path
) -> None:
    done = small("stages=[early]", f"stage_options.early.fault={fault}")
    assert done.code == 2
    (line,) = done.errors
    assert "stage 'early' of " in line and words in line
    (run,) = runs(tmp_path)
    assert records(run)[0]["status"] == "failed"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stages=[filter]"], ["Unknown stage 'filter' in stages", "filter_demonstrations", "held_out_accuracy"]),
        (["stages=[held_out_accuracy,held_out_accuracy]"], ["twice"]),
        (["stages=filter_demonstrations"], ["stages"]),
        (["stages=[[held_out_accuracy]]"], ["Unknown stage", "in stages", "held_out_accuracy"]),
        (["+stage_options.nope.x=1"], ["Unknown stage 'nope' in stage_options", "filter_demonstrations"]),
        (["stage_options.nope.x=1"], ["Unknown stage 'nope' in stage_options", "filter_demonstrations"]),
        (["stage_options.filter_demonstrations.minwords=1"], ["min_words"]),
        (["stages=[filter_demonstrations]", "stage_options.filter_demonstrations.min_words=-1"], ["min_words"]),
        (["stages=[filter_demonstrations]", "stage_options.filter_demonstrations.max_words=2",
          "stage_options.filter_demonstrations.min_words=3"], ["nothing would be left"]),
    ],
)  # fmt: skip
def test_a_choice_that_there_is_not(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(overrides)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_run_that_lacks_what_a_stage_needs_is_refused_before_a_model_is_loaded(command: Command) -> None:
    done = command("algo=sft", "stages=[held_out_accuracy]")
    assert done.code == 2
    assert "held_out_accuracy needs held-out rankings" in done.errors[0]
    assert "model" not in {line.split()[0] for line in done.err.splitlines() if " s " in line}


# What a run is named by


def test_stages_are_part_of_who_a_run_is() -> None:
    plain, none = load_config([]), load_config(["stages=[]"])
    early, changed = (
        load_config(["stages=[filter_demonstrations]", *more])
        for more in ([], ["stage_options.filter_demonstrations.min_words=2"])
    )
    late = load_config(["stages=[held_out_accuracy]"])
    assert (plain.hash, plain.yaml) == (none.hash, none.yaml), "no stage, no key"
    assert len({config.hash for config in (plain, early, changed, late)}) == 4
    assert len({config.sft_hash for config in (plain, early, changed)}) == 3
    assert late.sft_hash == plain.sft_hash, "it comes after the SFT model"


def test_demonstrations_are_kept_of_prompts_that_are_there_and_of_others() -> None:
    """A data source's own prompts may hold what JSON does not, as a set."""
    reference = Reference("4", ("3", "4"), (Constraint("words", {"n": 2}),), "assert x")
    turns = (Message("system", "s"), Message("user", "2+2?"))
    new = Prompt("p", turns, Opinion.WRONG, "c", {"k": [1]}, reference, "sums")
    there = {"q": Prompt("q", (Message("user", "é"),), info={"k": frozenset({1})})}
    other = dataclasses.replace(there["q"], info={})
    given = tuple(
        Demonstration(prompt, text) for prompt, text in ((new, "4"), (there["q"], "x"), (other, "y"), (new, "5"))
    )
    found = kept.read(kept.as_json(given, there), there)
    assert found == given
    assert found[0].prompt is found[3].prompt and found[1].prompt is there["q"]
    with pytest.raises(TypeError, match="frozenset"):
        kept.as_json(given, {})


@pytest.mark.parametrize("world", ["experiment=exact", "data=world"])
def test_every_world_lets_its_demonstrations_be_filtered(world: str, command: Command, tmp_path: Path) -> None:
    chosen = ("stages=[filter_demonstrations]", "stage_options.filter_demonstrations.per_prompt=1", "sft.updates=1")
    sizes = ("algo=sft", "algo.updates=1", "algo.batch_size=8", "pretrain.updates=1", "data.demonstrations=60")
    done = command(world, *chosen, *sizes, "eval=quick", "eval.questions=2", "eval.samples=1")
    assert done.code == 0, done.err
    (run,) = runs(tmp_path)
    reports = records(run)[0]["reports"]
    left_out = (run / "stages" / "filter_demonstrations" / "left_out.jsonl").read_text().splitlines()
    assert reports["stage/filter_demonstrations/kept"] == 60 - len(left_out) > 0
