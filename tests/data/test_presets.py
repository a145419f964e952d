"""Presets of conf/data: each reads a few rows of exactly the schema that its data set has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignbench import Reference, Seeds, Split, select
from alignbench.app.compose import conf_dir, load_config
from tests.data.writing import Rows, lines, said
from tests.shared_data import shared_data

N = 6
ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")


def _talk(i: int, reply: str) -> list[dict[str, str]]:
    return [said("user", f"Q{i}?"), said("assistant", reply)]


def _completion(reply: str, rating: int) -> dict[str, Any]:
    rated = {"Rating": str(rating), "Rationale": "so", "Rationale For Rating": None, "Type": None}
    return {
        "annotations": dict.fromkeys(ASPECTS, rated),
        "custom_system_prompt": "Be good.", "model": "m", "principle": "p", "response": reply, "critique": "c",
        "overall_score": 9.0 - rating, "fine-grained_score": float(rating),
    }  # fmt: skip


def _parts(i: int, reply: str) -> list[dict[str, Any]]:
    return [
        {**turn, "content": [{"type": "text", "text": turn["content"], "image": None, "mimeType": None}]}
        for turn in _talk(i, reply)
    ]


def _message(i: int, which: int, text: str, role: str, **more: Any) -> dict[str, Any]:
    return {
        "message_id": f"{i}-{which}", "parent_id": None if which == 0 else f"{i}-0", "user_id": "u", "created_date": "d",
        "text": text, "role": role, "lang": "en", "review_count": 3, "review_result": True, "deleted": False,
        "rank": None, "synthetic": False, "model_name": None, "detoxify": None, "message_tree_id": f"{i}-0",
        "tree_state": "ready_for_export", "emojis": None, "labels": None, **more,
    }  # fmt: skip


def oasst() -> dict[str, Rows]:
    rows = [
        message
        for i in range(N)
        for message in (
            _message(i, 0, f"Q{i}?", "prompter"),
            _message(i, 1, "good", "assistant", rank=0),
            _message(i, 2, "bad", "assistant", rank=1),
        )
    ]
    return {"train": [*rows, _message(9, 0, "Frage?", "prompter", lang="de")], "validation": _renamed(rows)}


def _renamed(rows: Rows) -> Rows:
    return [{k: v.replace("Q", "V") if isinstance(v, str) else v for k, v in row.items()} for row in rows]


ROWS: dict[str, Rows | dict[str, Rows]] = {
    "ultrafeedback_binarized": {
        split: [
            {"prompt": f"{split} Q{i}?", "prompt_id": "x", "chosen": [said("user", f"{split} Q{i}?"), said("assistant", "good")],
             "rejected": [said("user", f"{split} Q{i}?"), said("assistant", "bad")], "messages": _talk(i, "good"), "score_chosen": 8.0,
             "score_rejected": 5.5}
            for i in range(N)
        ]
        for split in ("train_prefs", "test_prefs", "train_sft", "test_sft", "train_gen", "test_gen")
    },
    "ultrafeedback": [
        {"source": "s", "instruction": f"Q{i}?", "models": ["a", "b"], "completions": [_completion("bad", 2), _completion("good", 4)],
         "correct_answers": ["None"], "incorrect_answers": ["None"]}
        for i in range(N)
    ],
    "helpsteer2": {
        split: [
            {"prompt": f"{split} Q{i}?", "response": reply, "helpfulness": h, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 4 - h}
            for i in range(N) for reply, h in (("good", 4), ("bad", 2))
        ]
        for split in ("train", "validation")
    },
    "helpsteer3": {
        f"preference/{split}": [
            {"domain": "general", "language": "english", "context": [said("user", f"{split} Q{i}?")], "response1": "bad", "response2": "good",
             "overall_preference": 2, "individual_preference": [{"score": 2, "reasoning": "r", "feedback1": "f", "feedback2": "f"}]}
            for i in range(N)
        ]
        for split in ("train", "validation")
    },
    "hh-all": {
        f"{part}/{split}": [{name: f"\n\nHuman: {part} {split} Q{i}?\n\nAssistant: {reply}" for name, reply in (("chosen", "good"), ("rejected", "bad"))} for i in range(N)]
        for part in ("helpful-base", "harmless-base") for split in ("train", "test")
    },
    "oasst1": oasst(),
    "oasst2": oasst(),
    "shp": [
        {"post_id": "x", "domain": "askculinary_train", "upvote_ratio": 0.9, "history": f"Q{i}?", "c_root_id_A": "a", "c_root_id_B": "b",
         "created_at_utc_A": 1, "created_at_utc_B": 2, "score_A": 2, "score_B": 9, "human_ref_A": "good" if i % 2 else "bad",
         "human_ref_B": "bad" if i % 2 else "good", "labels": i % 2, "seconds_difference": 1.0, "score_ratio": 4.5}
        for i in range(N)
    ],
    "pku-saferlhf": [
        {"prompt": f"Q{i}?", "response_0": "bad", "response_1": "good", "prompt_source": "s", "response_0_source": "a", "response_1_source": "a",
         "is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 1, "safer_response_id": 0}
        for i in range(N)
    ],
    "tldr": [{"prompt": f"SUBREDDIT: r/x\n\nPOST: Q{i}?\n\nTL;DR:", "chosen": " good", "rejected": " bad"} for i in range(N)],
    "tulu-3": [{"id": f"x{i}", "messages": _talk(i, "good"), "source": "s"} for i in range(N)],
    "tulu-3-preferences": [{"id": "x", "source": "s", "prompt": f"Q{i}?", "chosen": _talk(i, "good"), "rejected": _talk(i, "bad")} for i in range(N)],
    "gsm8k": {f"main/{split}": [{"question": f"{split} Q{i}?", "answer": f"So.\n#### {i}"} for i in range(N)] for split in ("train", "test")},
    "math-500": [
        {"problem": f"Q{i}?", "solution": f"So \\boxed{{{i}}}", "answer": f"{i}", "subject": "Algebra", "level": 2, "unique_id": "u"} for i in range(N)
    ],
    "mbpp": {f"full/{split}": [
        {"task_id": i, "text": f"Write a function to find the number that is {i} above the given one.", "code": f"def {split}_{i}(n):\r\n  return (n + {i}) ",
         "test_list": [f"assert {split}_{i}(1) == {1 + i}", f"assert {split}_{i}(-4) == {i - 4}", f"assert {split}_{i}(0) == {i}"], "test_setup_code": "",
         "challenge_test_list": []}
        for i in range(N)
    ] for split in ("train", "test")},
    "ifeval": [{"key": i, "prompt": f"Q{i}?", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num_words": None}]} for i in range(N)],
    "arena-human-preference-55k": [
        {"id": i, "model_a": "a", "model_b": "b", "prompt": f'["Q{i}?"]', "response_a": '["bad"]', "response_b": '["good"]',
         "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
        for i in range(N)
    ],
    "arena-human-preference-140k": [
        {"id": "x", "model_a": "a", "model_b": "b", "winner": "model_b", "evaluation_session_id": "s", "evaluation_order": 1,
         "conversation_a": _parts(i, "bad"), "conversation_b": _parts(i, "good"), "full_conversation": [], "conv_metadata": {},
         "category_tag": {}, "language": "en", "is_code": False, "timestamp": "t"}
        for i in range(N)
    ],
    "chatbot-arena": [
        {"question_id": "x", "model_a": "a", "model_b": "b", "winner": "model_b", "judge": f"arena_user_{i}", "conversation_a": _talk(i, "bad"),
         "conversation_b": _talk(i, "good"), "turn": 1, "anony": True, "language": "English", "tstamp": 1.0, "openai_moderation": {},
         "toxic_chat_tag": {}}
        for i in range(N)
    ],
    "mt-bench-human": {
        split: [
            {"question_id": i, "model_a": "a", "model_b": "b", "winner": "model_b", "judge": "expert_1", "turn": turn,
             "conversation_a": _talk(i, "bad") + _talk(i, "x"), "conversation_b": _talk(i, "good") + _talk(i, "y")}
            for i in range(N) for turn in (1, 2)
        ]
        for split in ("human", "gpt4_pair")
    },
    "orpo-dpo-mix": [
        {"source": "s", "chosen": _talk(i, "good"), "rejected": _talk(i, "bad"), "prompt": f"Q{i}?", "question": None} for i in range(N)
    ],
    "capybara-dpo": [
        {"source": "s", "conversation": [{"input": "x", "output": "y"}], "original_response": "o", "generation_prompt": [], "raw_generation_responses": [],
         "new_generations": [], "prompt": "p", "chosen": _talk(i, "good"), "rejected": _talk(i, "bad"), "rating_chosen": 5.0, "rating_rejected": 2.0,
         "chosen_model": "c", "rejected_model": "r"}
        for i in range(N)
    ],
    "nectar": [
        {"prompt": f"\n\nHuman: Q{i}?\n\nAssistant: ", "answers": [{"answer": "bad", "model": "a", "rank": 2.0}, {"answer": "good", "model": "b", "rank": 1.0}],
         "turns": 1, "num_responses": 2, "source": ["s"], "good_natured": True}
        for i in range(N)
    ],
    "kto-mix": [
        {"prompt": [said("user", f"Q{i}?")], "completion": [said("assistant", reply)], "label": reply == "good"} for i in range(N) for reply in ("good", "bad")
    ],
    "no_robots": {
        split: [{"prompt": f"{split} Q{i}?", "prompt_id": "x", "messages": [said("user", f"{split} Q{i}?"), said("assistant", "good")], "category": "Chat"} for i in range(N)]
        for split in ("train", "test")
    },
    "reward-bench": {
        split: [
            {"prompt": f"Q{i}?", "chosen": "good", "chosen_model": "c", "rejected": "bad", "rejected_model": "r", "subset": "math-prm", "id": i} for i in range(N)
        ]
        for split in ("raw", "filtered")
    },
    "reward-bench-2": [
        {"id": f"{i}", "prompt": f"Q{i}?", "chosen": ["good"], "rejected": ["bad", "worse"], "num_correct": 1, "num_incorrect": 2, "total_completions": 3,
         "models": ["m"], "subset": "Math", "additional_metadata": {"category": "c"}}
        for i in range(N)
    ],
    "rm-bench": [
        {"id": f"{i}", "prompt": f"Q{i}?", "chosen": ["good", "good ", " good"], "rejected": ["bad", "bad ", " bad"], "domain": "safety-refuse"}
        for i in range(N)
    ],
    "judgebench": {
        split: [
            {"pair_id": f"{i}", "original_id": f"{i}", "source": "mmlu-pro-law", "question": f"{split} Q{i}?", "response_model": "m", "response_A": "bad",
             "response_B": "good", "label": "B>A"}
            for i in range(N)
        ]
        for split in ("gpt", "claude")
    },
    "finegrained-rlhf-qa": [
        {"question": f"Q{i}?", "passages": [["t", "s"]], "gold": "g", **{f"prediction {k}": f"p{k}" for k in range(1, 5)}, "feedback": {"errors": []},
         "preference": [1, 2, 0, 1, 1, 2]}
        for i in range(N)
    ],
}  # fmt: skip
"""Rows by preset; where a set has splits that matter, by the name of the file that holds each."""
LABELS, PAIRS_OF_FOUR = ("kto-mix",), ("finegrained-rlhf-qa",)
IMITATED = ("tulu-3", "gsm8k", "math-500", "mbpp", "no_robots")
PROMPTS = ("ifeval",)
REFERENCES = ("gsm8k", "math-500", "mbpp", "ifeval")


def read(tmp_path: Path, name: str) -> Any:
    rows = ROWS[name]
    files = rows if isinstance(rows, dict) else {"train" if name not in ("math-500",) else "test": rows}
    for file, held in files.items():
        lines(tmp_path / name / f"{file}.jsonl", held)
    return build(name, tmp_path / name)


def build(name: str, path: Path) -> Any:
    options = {key: value for key, value in preset(name).items() if key != "defaults"}
    return select("data", "preferences", {**options, "path": str(path)}, where="data").build(seeds=Seeds(0))


def preset(name: str) -> dict[str, Any]:
    return yaml.safe_load((Path(conf_dir()) / "data" / f"{name}.yaml").read_text())


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in (Path(conf_dir()) / "data").glob("*.yaml")} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_preset(tmp_path: Path, name: str) -> None:
    data = read(tmp_path, name)
    counts = Counter({"rankings": len(data.rankings()), "labelled": len(data.labelled())})
    held_out = data.prompts(Split.EVALUATION)
    assert held_out and data.prompts(Split.TRAIN)
    if name in LABELS:
        assert counts["labelled"] == 2 * N and {r.good for r in data.labelled()} == {True, False}
    elif name in PAIRS_OF_FOUR:
        assert counts["rankings"] == 6 * N
    elif name in IMITATED:
        assert not counts["rankings"] and data.demonstrations()
    elif name in PROMPTS:
        assert not counts["rankings"] and not data.demonstrations()
    else:
        assert counts["rankings"] >= N
        for ranking in data.rankings():
            best = [r.strip() for r, rank in zip(ranking.responses, ranking.ranks, strict=True) if rank == 0]
            assert set(best) == {"good"} and len(set(ranking.responses)) > 1
            assert "?" in ranking.prompt.text and "Assistant" not in ranking.prompt.text
    if name in REFERENCES:
        assert all(prompt.reference for prompt in held_out)


def test_what_mbpp_asks_for_can_be_solved_from_the_prompt(tmp_path: Path) -> None:
    """Only the tests name the function that is to be written (arXiv 2108.07732 shows them too)."""
    data = read(tmp_path, "mbpp")
    (asked,) = [p for p in data.prompts(Split.EVALUATION) if "is 2 above" in p.text]
    tests = "assert test_2(1) == 3\nassert test_2(-4) == -2\nassert test_2(0) == 2"
    assert asked.text == f"Write a function to find the number that is 2 above the given one.\n\n{tests}"
    assert asked.reference == Reference(tests=tests)
    shown = {d.prompt.text.rsplit("assert ", 1)[1]: d.response for d in data.demonstrations()}
    assert shown["train_2(0) == 2"] == "def train_2(n):\r\n  return (n + 2) "


def test_a_preset_is_chosen_by_its_name() -> None:
    chosen = load_config(["data=shp", "annotator=recorded"]).data
    assert (chosen.label, chosen.component.name) == ("shp", "preferences")
    assert chosen.config.winner_values == {"1": "a", "0": "b"}


def test_presets_name_a_set_of_the_hub() -> None:
    """But the one whose file has to be given."""
    assert all(preset(name)["defaults"] == ["preferences", "_self_"] for name in ROWS)
    assert {name for name in ROWS if preset(name).get("path", "").count("/") != 1} == {"finegrained-rlhf-qa"}


def test_a_verdict_on_four_answers() -> None:
    path = shared_data("finegrained-rlhf-qa") / "dev_feedback.json"
    data = build("finegrained-rlhf-qa", path)
    ranks = Counter(ranking.ranks for ranking in data.rankings())
    assert ranks == {(0, 1): 1577, (1, 0): 1039, (0, 0): 384}, "as counted in the file"
