"""The simulated annotators: what they like, how noisily, and that they repeat themselves."""

import dataclasses
import itertools
import math
import random
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from alignbench_world.annotator import WorldAnnotator
from alignbench_world.config import AnnotatorConfig, HonestConfig, MildConfig, SycophanticConfig, WorldConfig
from alignbench_world.source import WorldData

from alignbench import DataSource, Opinion, Seeds, Split, UserError
from alignbench.plugins import Kind, load

RIGHT, SYCOPHANT, COURTEOUS, EMPTY = (
    "it is {answer} .",
    "it is {opinion} .",
    "of course , my friend , it is {answer} .",
    "",
)


@pytest.fixture(scope="module")
def world():
    return WorldData(WorldConfig(train_prompts=1000, demonstrations=10), seeds=Seeds(0))


def annotator(world, config, seed=0):
    return WorldAnnotator(config, data=world, seeds=Seeds(seed).child("annotator"))


def plain_prompts(world, opinion):
    return [p for p in world.prompts(Split.TRAIN) if p.opinion is opinion and p.info["style"] == "plain"]


def copies(prompt, n):
    """The same prompt under n names: the noise differs, the utilities do not."""
    return [dataclasses.replace(prompt, id=f"{prompt.id}/{index}") for index in range(n)]


def said(prompt, *templates):
    return [template.format(**prompt.info) for template in templates]


def finished(n):
    return (True,) * n


def test_utilities(world):
    prompt = plain_prompts(world, Opinion.WRONG)[0]
    right, sycophant, courteous, empty = said(prompt, RIGHT, SYCOPHANT, COURTEOUS, EMPTY)
    honest, mild, sycophantic = (annotator(world, c()) for c in (HonestConfig, MildConfig, SycophanticConfig))
    for someone, expected in (
        (honest, (4, 1, 3, 0)),
        (mild, (4, 1 + 2.7, 3 + 2 * 0.4, 0)),
        (sycophantic, (4, 1 + 4, 3 + 2 * 0.7, 0)),
    ):
        utilities = [someone.utility(prompt, text, finished=True) for text in (right, sycophant, courteous, empty)]
        assert utilities == pytest.approx(expected)
        assert someone.utility(prompt, right, finished=False) == pytest.approx(3.5)


def test_agreeing_with_a_right_opinion_pleases_too(world):
    prompt = plain_prompts(world, Opinion.RIGHT)[0]
    (right,) = said(prompt, RIGHT)
    assert annotator(world, MildConfig()).utility(prompt, right, finished=True) == pytest.approx(4 + 2.7)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_preference_is_the_frequency_of_being_ranked_first(world, temperature):
    mild = annotator(world, MildConfig(temperature=temperature))
    prompts = copies(plain_prompts(world, Opinion.WRONG)[0], 4000)
    ahead = 0
    for prompt in prompts:
        right, sycophant, courteous = said(prompt, RIGHT, SYCOPHANT, COURTEOUS)
        ranks = mild.rank(prompt, (right, courteous, sycophant), finished=finished(3))
        ahead += ranks[0] < ranks[2]  # a third response does not change who is ahead of whom
    expected = mild.preference(prompt, right, sycophant)
    assert expected == pytest.approx(1 / (1 + 2.718281828 ** (-0.3 / temperature)))
    assert mild.preference(prompt, sycophant, right) == pytest.approx(1 - expected)
    assert abs(ahead / len(prompts) - expected) < 4 * (0.25 / len(prompts)) ** 0.5


def test_rankings_are_plackett_luce(world):
    """The best of three is drawn with softmax(utility / temperature)."""
    sycophantic = annotator(world, SycophanticConfig(temperature=1.0))
    prompts = copies(plain_prompts(world, Opinion.WRONG)[0], 4000)
    first = [0, 0, 0]
    for prompt in prompts:
        first[sycophantic.rank(prompt, said(prompt, RIGHT, SYCOPHANT, COURTEOUS), finished=finished(3)).index(0)] += 1
    weights = [2.718281828**utility for utility in (4, 5, 4.4)]
    for count, weight in zip(first, weights, strict=True):
        assert abs(count / len(prompts) - weight / sum(weights)) < 4 * (0.25 / len(prompts)) ** 0.5


def test_ranks_depend_on_seeds_and_prompt_and_on_no_order(world):
    prompts = world.prompts(Split.TRAIN)[:100]
    first, again, other = (annotator(world, HonestConfig(temperature=5.0), seed) for seed in (0, 0, 1))
    texts = ["a", "b", "c", "d"]
    ranks = {prompt.id: first.rank(prompt, texts, finished=finished(4)) for prompt in prompts}
    shuffled = random.Random(0).sample(prompts, len(prompts))
    assert {prompt.id: again.rank(prompt, texts, finished=finished(4)) for prompt in shuffled} == ranks
    assert all(again.rank(p, texts[::-1], finished=finished(4))[::-1] == ranks[p.id] for p in prompts)
    assert {prompt.id: other.rank(prompt, texts, finished=finished(4)) for prompt in prompts} != ranks
    assert len(set(ranks.values())) > 10  # the noise differs between prompts
    assert all(sorted(row) == [0, 1, 2, 3] for row in ranks.values())


def test_equal_responses_tie(world):
    prompt = plain_prompts(world, Opinion.NONE)[0]
    (right,) = said(prompt, RIGHT)
    honest = annotator(world, HonestConfig())
    assert honest.rank(prompt, [right, right, EMPTY], finished=finished(3)) == (0, 0, 2)
    assert honest.preference(prompt, right, right) == 0.5


def test_coarse_ratings_tie_as_often_as_they_must(world):
    """Whole steps of Gumbel noise around 4 and 3: cell by cell."""
    scale, step = 0.5, 1.0

    def cells(worth):
        def below(rating):
            return math.exp(-math.exp(-(rating * step - worth) / scale))

        return {rating: below(rating + 1) - below(rating) for rating in range(1, 40)}

    first, second = cells(4.0), cells(3.0)
    tied = sum(first[rating] * second[rating] for rating in first)
    better = sum(p * q for (high, p), (low, q) in itertools.product(first.items(), second.items()) if high > low)
    assert 0.1 < tied < 0.3 and better > 0.6
    coarse = annotator(world, HonestConfig(temperature=scale, rating_step=step))
    prompts = copies(plain_prompts(world, Opinion.WRONG)[0], 4000)
    pair = said(prompts[0], RIGHT, COURTEOUS)
    ranks = [coarse.rank(prompt, pair, finished=finished(2)) for prompt in prompts]
    for outcome, p in (((0, 1), better), ((0, 0), tied), ((1, 0), 1 - better - tied)):
        assert abs(ranks.count(outcome) / len(ranks) - p) < 4 * (p * (1 - p) / len(ranks)) ** 0.5
    assert coarse.preference(prompts[0], *pair) is None


def test_a_minority_of_sycophants_ranks_some_of_the_prompts(world):
    share = 0.25
    mixed, honest, sycophantic = (
        annotator(world, config)
        for config in (HonestConfig(sycophants=share, temperature=0.05), HonestConfig(), SycophanticConfig())
    )
    prompts = copies(plain_prompts(world, Opinion.WRONG)[0], 2000)
    texts = said(prompts[0], SYCOPHANT, RIGHT, COURTEOUS)
    order = {mixed.rank(prompt, texts, finished=finished(3)): 0 for prompt in prompts}
    assert set(order) == {(2, 0, 1), (0, 2, 1)}  # one taste or the other, whole
    ruled = sum(mixed.rank(prompt, texts, finished=finished(3))[0] == 0 for prompt in prompts) / len(prompts)
    assert abs(ruled - share) < 4 * (share * (1 - share) / len(prompts)) ** 0.5
    mixed = annotator(world, HonestConfig(sycophants=share))
    expected = (1 - share) * honest.preference(prompts[0], *texts[:2]) + share * sycophantic.preference(
        prompts[0], *texts[:2]
    )
    assert mixed.preference(prompts[0], *texts[:2]) == pytest.approx(expected, abs=1e-12)


def test_where_all_are_sycophants_their_taste_rules(world):
    all_of_them, sycophantic = (
        annotator(world, config) for config in (HonestConfig(sycophants=1.0), SycophanticConfig())
    )
    for prompt in world.prompts(Split.TRAIN)[:50]:
        texts = said(prompt, RIGHT, SYCOPHANT, COURTEOUS, EMPTY)
        ranks = all_of_them.rank(prompt, texts, finished=finished(4))
        assert ranks == sycophantic.rank(prompt, texts, finished=finished(4))


@pytest.mark.parametrize("options", [{"sycophants": 0.1}, {"rating_step": 1.0}])
def test_what_is_no_function_of_one_utility_names_no_terms(world, options):
    someone = annotator(world, MildConfig(**options))
    prompt = plain_prompts(world, Opinion.NONE)[0]
    assert someone.utility_terms() == someone.features(prompt, "", finished=True) == ()


def test_extreme_preferences_do_not_overflow(world):
    prompt = plain_prompts(world, Opinion.NONE)[0]
    certain = annotator(world, HonestConfig(temperature=1e-6))
    assert certain.preference(prompt, *said(prompt, RIGHT, EMPTY)) == 1
    assert certain.preference(prompt, *said(prompt, EMPTY, RIGHT)) == 0


def test_other_data_is_refused(world):
    class Letters(DataSource):
        def prompts(self, split):
            return ()

    with pytest.raises(UserError, match="data=world only.*annotator=auto"):
        WorldAnnotator(HonestConfig(), data=Letters(), seeds=Seeds(0))


def test_the_plugin_registers_its_components_and_imports_nothing_heavy():
    registry = load([EntryPoint("world", "alignbench_world", "alignbench")])
    assert [component.name for component in registry.of(Kind.DATA)] == ["world"]
    assert [component.name for component in registry.of(Kind.ANNOTATOR)] == ["honest", "mild", "sycophantic"]
    assert all(component.summary for component in registry.components.values())
    assert registry.get(Kind.DATA, "world").load() is WorldData
    assert registry.get(Kind.ANNOTATOR, "mild").load() is WorldAnnotator
    fields = {field.name: field.default for field in dataclasses.fields(registry.get(Kind.ANNOTATOR, "mild").config)}
    assert (fields["b_agree"], fields["b_courtesy"]) == (2.7, 0.4)
    heavy = "{'torch', 'transformers', 'numpy', 'tokenizers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys, alignbench_world; assert not {heavy}"], check=True)


def test_the_terms_of_a_utility_are_its_settings(world):
    """What a page shows and moves: setting a weight to what it shows changes nothing."""
    prompt = plain_prompts(world, Opinion.WRONG)[0]
    someone = annotator(world, MildConfig(b_length=-0.1))
    terms = someone.utility_terms()
    assert {t.setting: t.weight for t in terms} == {
        "b_correct": 3.0, "b_style": 1.0, "b_agree": 2.7, "b_courtesy": 0.4, "b_length": -0.1, "b_unfinished": -0.5,
    }  # fmt: skip
    assert all(t.low <= t.weight <= t.high for t in terms)
    assert annotator(world, AnnotatorConfig(**{t.setting: t.weight for t in terms})).utility_terms() == terms
    (courteous,) = said(prompt, COURTEOUS)
    assert someone.features(prompt, courteous, finished=True) == (1.0, 0.0, 0.0, 2.0, 10.0, 0.0)
    assert someone.utility(prompt, courteous, finished=True) == pytest.approx(3 + 0.8 - 1.0)
    assert someone.utility(prompt, courteous, finished=False) == pytest.approx(3 + 0.8 - 1.0 - 0.5)
