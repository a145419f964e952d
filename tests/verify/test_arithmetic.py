"""The world of sums: its split, its demonstrator, its tokenizer, the truth, and a whole run."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from alignbench_verify.arithmetic.source import ArithmeticData
from alignbench_verify.arithmetic.sums import DIFFICULTIES, Sum, every_sum, mistaken
from alignbench_verify.config import WORDINGS, ArithmeticConfig, VerifyConfig
from alignbench_verify.verifier import Answer, Verifier
from transformers import AutoTokenizer

from alignbench import Seeds, Split, UserError
from tests.core.harness import SMALL, command, records


@pytest.fixture(scope="module")
def world() -> ArithmeticData:
    return ArithmeticData(ArithmeticConfig(), seeds=Seeds(0))


def small(seed: int = 0, **settings: object) -> ArithmeticData:
    config = ArithmeticConfig(**{"train_prompts": 50, "demonstrations": 50, **settings})  # type: ignore[arg-type]
    return ArithmeticData(config, seeds=Seeds(seed))


@pytest.mark.parametrize(
    ("asked", "difficulty", "answer"),
    [
        (Sum(3, 4), "one_digit", 7),
        (Sum(8, 9), "one_digit", 17),
        (Sum(12, 7), "two_digits", 19),
        (Sum(40, 49), "two_digits", 89),
        (Sum(27, 38), "carry", 65),
        (Sum(5, 45), "carry", 50),
        (Sum(0, 0), "one_digit", 0),
    ],
)
def test_difficulties(asked: Sum, difficulty: str, answer: int) -> None:
    assert (asked.difficulty, asked.answer) == (difficulty, answer)


def test_mistakes_are_wrong_and_people_like() -> None:
    rng = random.Random(0)
    for asked in every_sum():
        wrong = mistaken(asked, rng)
        assert wrong >= 0 and abs(wrong - asked.answer) in (1, 10)
    assert Counter(mistaken(Sum(27, 38), rng) for _ in range(1000))[55] > 500  # the carry, and some tens


def test_splits_do_not_overlap(world: ArithmeticData) -> None:
    held_out = {prompt.cluster for prompt in world.prompts(Split.EVALUATION)}
    learnt = [*world.prompts(Split.TRAIN), *(d.prompt for d in (*world.lessons(), *world.demonstrations()))]
    assert held_out.isdisjoint(prompt.cluster for prompt in learnt)
    assert len(world.lessons()) + len(world.prompts(Split.EVALUATION)) == len(every_sum())


def test_every_difficulty_is_asked(world: ArithmeticData) -> None:
    asked = Counter(prompt.subset for prompt in world.prompts(Split.EVALUATION))
    assert asked == {"one_digit": 20, "two_digits": 100, "carry": 100}
    train = Counter(prompt.subset for prompt in world.prompts(Split.TRAIN))
    assert set(train) == set(DIFFICULTIES) and min(train.values()) > 6000


def test_ids_are_unique(world: ArithmeticData) -> None:
    prompts = [*world.prompts(Split.EVALUATION), *world.prompts(Split.TRAIN)]
    prompts += [shown.prompt for shown in (*world.lessons(), *world.demonstrations())]
    assert len({prompt.id for prompt in prompts}) == len(prompts)


def test_the_run_draws_what_is_learnt_and_not_what_is_asked() -> None:
    one, other = small(0), small(1)
    assert one.prompts(Split.EVALUATION) == other.prompts(Split.EVALUATION)
    assert one.prompts(Split.TRAIN) == small(0).prompts(Split.TRAIN) != other.prompts(Split.TRAIN)
    assert one.demonstrations() == small(0).demonstrations() != other.demonstrations()
    assert one.prompts(Split.EVALUATION) != small(0, world_seed=1).prompts(Split.EVALUATION)


@pytest.mark.parametrize("errs", [0.0, 0.5, 1.0])
def test_the_demonstrator_errs_as_often_as_it_should(errs: float) -> None:
    data = small(demonstrations=4000, demonstrator_errs=errs)
    right = [data.judge(d.prompt, d.response, finished=True).correct for d in data.demonstrations()]
    assert sum(map(bool, right)) / len(right) == pytest.approx(1 - errs, abs=0.04)


def test_lessons_are_right(world: ArithmeticData) -> None:
    assert all(world.judge(lesson.prompt, lesson.response, finished=True).correct for lesson in world.lessons())


def test_the_truth(world: ArithmeticData) -> None:
    prompt = world.prompts(Split.EVALUATION)[0]
    assert prompt.reference is not None
    answer = prompt.reference.answer
    assert int(answer) == sum(map(int, prompt.text.rstrip("=").split("+")))
    for response, finished, right in (
        (answer, True, True),
        (answer, False, False),
        (f"{answer}={answer}", True, False),
        ("", True, False),
    ):
        verdict = world.judge(prompt, response, finished=finished)
        assert (verdict.correct, verdict.gold_reward) == (right, float(right))


def test_tokens_are_signs(world: ArithmeticData, tmp_path: Path) -> None:
    tokenizer = world.tokenizer()
    texts = sorted({d.response for d in world.demonstrations()} | {p.text for p in world.prompts(Split.TRAIN)})
    rows = tokenizer(texts)["input_ids"]
    assert [len(row) for row in rows] == [len(text) for text in texts]
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == texts
    assert not any(tokenizer.unk_token_id in row for row in rows)
    assert tokenizer(" 2 7\n+ 5")["input_ids"] == tokenizer("27+5")["input_ids"]
    chat = [{"role": "user", "content": "27+58="}, {"role": "assistant", "content": "85"}]
    asked = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(chat, return_dict=False)
    assert whole == [*asked, *tokenizer("85")["input_ids"], tokenizer.eos_token_id]
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(texts)["input_ids"] == rows
    assert loaded.batch_decode(rows, skip_special_tokens=True) == texts


def test_sums_in_words_are_the_same_sums(world: ArithmeticData) -> None:
    spoken = ArithmeticData(ArithmeticConfig(wording="words"), seeds=Seeds(0))
    assert spoken.tokenizer() is None  # that of signs has no words: the model brings its own
    for wording in WORDINGS:
        assert len({asked.asked(wording) for asked in every_sum()}) == len(every_sum())
    for split in Split:
        for plain, prompt in zip(world.prompts(split), spoken.prompts(split), strict=True):
            assert (prompt.id, prompt.cluster, prompt.reference) == (plain.id, plain.cluster, plain.reference)
    assert Sum(27, 40).asked("words") == "What is 27 plus 40?"
    for plain, shown in zip(world.demonstrations(), spoken.demonstrations(), strict=True):
        left, right = plain.prompt.info["left"], plain.prompt.info["right"]
        assert shown.response == f"{left} + {right} = {plain.response}"  # right or wrong as in signs


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("67", True),
        ("27 + 40 = 67", True),
        ("The answer is 67.", True),
        ("67 or 68", False),
        ("27 + 40 = 57", False),
        ("27 + 40", False),
        ("sixty-seven", False),
        ("", False),
    ],
)
def test_in_words_the_number_counts_that_a_response_comes_to(response: str, right: bool) -> None:
    """The truth of the world and the reward that is trained on agree."""
    data = ArithmeticData(ArithmeticConfig(wording="words"), seeds=Seeds(0))
    prompt = data._prompt("test", Sum(27, 40))
    assert data.judge(prompt, response, finished=True).correct is right
    assert data.judge(prompt, response, finished=False).correct is False
    verifier = Verifier(VerifyConfig(), ["auto"], where="reward=verify")
    assert verifier.passed([Answer(prompt, response, True)]) == [{"auto": right}]


def test_an_unknown_wording_is_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown data\.wording 'word'.* Did you mean 'words'"):
        ArithmeticConfig(wording="word")


def test_a_model_without_a_tokenizer_cannot_read_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = command(capsys, "experiment=arithmetic", "data.wording=words", f"results_dir={tmp_path}")
    assert done.code == 2 and "tokenizer" in done.err, done


@pytest.mark.parametrize("held_out", [6, 3000])
def test_something_is_left_to_ask_and_to_learn(held_out: int) -> None:
    data = small(evaluation_prompts=held_out)
    assert all(data.held_out[name] and data.learnt[name] for name in DIFFICULTIES)


@pytest.mark.parametrize("algo", ["ppo", "rejection_sampling"])
def test_a_whole_run(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [size.replace("data.evaluation_questions", "data.evaluation_prompts") for size in SMALL]
    there = (f"results_dir={tmp_path}", "cache=false")
    done = command(capsys, "experiment=arithmetic", f"algo={algo}", "algo.updates=2", *sizes, *there)
    assert done.code == 0, done.err
    run, sft = records(tmp_path)
    assert {"verified/pass_at_1", "verified/pass_at_2", "verified/carry_pass_at_1"} <= set(run["metrics"]) & set(
        sft["metrics"]
    )
    assert run["metrics"]["verified/pass_at_1"]["n"] == 12
