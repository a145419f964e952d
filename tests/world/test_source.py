"""The world as data: its prompts, its split, its demonstrations, its settings."""

import json
from collections import Counter

import pytest
from alignbench_world.config import WorldConfig
from alignbench_world.language import ENTITIES, OPINIONS, QUESTIONS, REQUESTS, VALUES, every_question
from alignbench_world.source import WorldData

from alignbench import Opinion, Prompt, Seeds, Split, UserError
from alignbench.bounds import ranges


@pytest.fixture(scope="module")
def world():
    return WorldData(WorldConfig(), seeds=Seeds(0))


def small(run_seed=0, **settings):
    return WorldData(WorldConfig(**{"train_prompts": 50, "demonstrations": 50, **settings}), seeds=Seeds(run_seed))


def near(share, probability, n):
    """Within five standard errors of a share of n."""
    return abs(share - probability) <= 5 * (probability * (1 - probability) / n) ** 0.5


def test_sizes(world):
    assert len(world.facts) == 100 and len(world.train_questions) == 1400
    assert len(world.prompts(Split.EVALUATION)) == 1800
    assert len(world.prompts(Split.TRAIN)) == len(world.demonstrations()) == 20000
    assert len(world.lessons()) == 500 + 5 * 8 * len(OPINIONS)  # facts, and opinions to copy
    assert world.counts()["evaluation prompts"] == 1800


def test_facts_are_values_of_their_relation_and_none_is_a_good_guess(world):
    for relation, values in VALUES.items():
        counts = Counter(world.facts[entity, relation] for entity in ENTITIES)
        assert set(counts) <= set(values) and max(counts.values()) <= 3


def test_splits_do_not_overlap(world):
    evaluation = world.prompts(Split.EVALUATION)
    learnt = [*world.prompts(Split.TRAIN), *(shown.prompt for shown in world.demonstrations())]
    assert {p.text for p in evaluation}.isdisjoint(p.text for p in learnt)
    assert {p.cluster for p in evaluation}.isdisjoint(p.cluster for p in learnt)
    assert len({p.cluster for p in learnt}) == 1400
    lessons = {lesson.prompt.text for lesson in world.lessons()}
    assert lessons.isdisjoint(p.text for p in (*evaluation, *learnt))


def test_prompt_ids_are_unique(world):
    prompts = [*world.prompts(Split.EVALUATION), *world.prompts(Split.TRAIN)]
    prompts += [shown.prompt for shown in (*world.lessons(), *world.demonstrations())]
    assert len({prompt.id for prompt in prompts}) == len(prompts)


def test_twins_differ_in_the_opinion_only(world):
    twins: dict[str, list[Prompt]] = {}
    for prompt in world.prompts(Split.EVALUATION):
        twins.setdefault(prompt.cluster, []).append(prompt)
    assert len(twins) == 600
    for none, right, wrong in twins.values():
        assert (none.opinion, right.opinion, wrong.opinion) == (Opinion.NONE, Opinion.RIGHT, Opinion.WRONG)
        answer, mistake = none.info["answer"], wrong.info["opinion"]
        assert none.info["opinion"] is None and right.info["opinion"] == answer != mistake
        assert mistake in VALUES[none.info["relation"]]
        assert {**right.info, "opinion": None} == {**wrong.info, "opinion": None} == dict(none.info)
        assert right.text.replace(answer, mistake) == wrong.text
        assert right.text.startswith(none.text) and none.text != right.text


def test_prompts_say_what_their_info_says(world):
    for prompt in (*world.prompts(Split.EVALUATION), *world.prompts(Split.TRAIN)):
        info = json.loads(json.dumps(dict(prompt.info)))
        assert info["answer"] == world.facts[info["entity"], info["relation"]]
        assert {info["entity"], info["relation"]} <= set(prompt.text.split()) and REQUESTS[info["style"]] in prompt.text
        stated = [word for word in prompt.text.split() if word in VALUES[info["relation"]]]
        assert stated == ([] if info["opinion"] is None else [info["opinion"]])
        assert len(prompt.messages) == 1 and prompt.messages[0].role == "user"


def test_lessons_give_every_fact_in_every_form(world):
    taught = {(lesson.prompt.text, lesson.response) for lesson in world.lessons()}
    for (entity, relation), value in world.facts.items():
        for form in QUESTIONS:
            assert (form.format(entity=entity, relation=relation), value) in taught


def test_training_opinions_have_the_configured_shares(world):
    kinds = Counter(prompt.opinion for prompt in world.prompts(Split.TRAIN))
    for opinion, share in ((Opinion.NONE, 0.4), (Opinion.RIGHT, 0.2), (Opinion.WRONG, 0.4)):
        assert near(kinds[opinion] / 20000, share, 20000)


def test_demonstrator_has_the_configured_rates(world):
    seen = {opinion: [] for opinion in Opinion}
    for shown in world.demonstrations():
        seen[shown.prompt.opinion].append(world.assess(shown.prompt, shown.response, finished=True))
    for opinion, correct in ((Opinion.NONE, 0.85), (Opinion.RIGHT, 0.85), (Opinion.WRONG, 0.6 * 0.85)):
        rows = seen[opinion]
        assert near(sum(row.correct for row in rows) / len(rows), correct, len(rows))
    wrong = seen[Opinion.WRONG]
    assert near(sum(row.agrees for row in wrong) / len(wrong), 0.4, len(wrong))
    rows = [row for rows in seen.values() for row in rows]
    assert near(sum(row.in_style for row in rows) / len(rows), 0.75, len(rows))
    assert len({shown.response for shown in world.demonstrations()}) > 5000  # many ways to say it


def test_a_perfect_demonstrator_is_perfect():
    world = small(demonstrator_errs=0, demonstrator_agrees=0, demonstrator_follows_style=1, demonstrations=500)
    for shown in world.demonstrations():
        verdict = world.judge(shown.prompt, shown.response, finished=True)
        assert verdict.correct and verdict.gold_reward > 2
        assert verdict.agrees is {Opinion.NONE: None, Opinion.RIGHT: True, Opinion.WRONG: False}[shown.prompt.opinion]


def test_own_errors_are_never_the_opinion():
    world = small(demonstrator_errs=1, demonstrator_agrees=0, demonstrations=2000)
    for shown in world.demonstrations():
        verdict = world.judge(shown.prompt, shown.response, finished=True)
        assert not verdict.correct and not verdict.agrees


def test_the_world_is_the_same_in_every_run_and_the_training_prompts_are_not():
    first, again, other, elsewhere = small(1), small(1), small(2), small(1, world_seed=5)
    assert first.demonstrations() == again.demonstrations()
    assert first.prompts(Split.TRAIN) == again.prompts(Split.TRAIN)
    assert first.facts == other.facts and first.prompts(Split.EVALUATION) == other.prompts(Split.EVALUATION)
    assert first.prompts(Split.TRAIN) != other.prompts(Split.TRAIN)
    assert first.demonstrations() != other.demonstrations()
    assert first.facts != elsewhere.facts and first.evaluation_questions != elsewhere.evaluation_questions


def test_fewer_evaluation_questions_are_the_first_of_the_more():
    assert small(evaluation_questions=10).prompts(Split.EVALUATION) == small().prompts(Split.EVALUATION)[:30]


def test_a_prompt_of_another_source_is_refused(world):
    with pytest.raises(UserError, match="'strange'"):
        world.judge(Prompt("strange", ()), "yes", finished=True)


def test_shares_that_are_more_than_all_are_refused():
    with pytest.raises(UserError, match=r"1\.1 is more than 1"):
        WorldConfig(no_opinion=0.9, right_opinion=0.2)


def test_training_is_left_a_question():
    assert ranges(WorldConfig)["evaluation_questions"].most == len(every_question()) - 1
