"""A Python function as reward: what it is given, and what is said of one that fails."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_rewards.config import FunctionConfig
from alignbench_rewards.function import FunctionReward

from alignbench import AlignbenchError, DataSource, Message, NonFiniteError, Prompt, Seeds, Split, UserError
from alignbench.testing import Status
from tests import tiny
from tests.rewards.kit import conforms

HERE = "tests.rewards.test_function"
TALK = Prompt("talk", (Message("user", "a"), Message("assistant", "b"), Message("user", "c d")), info={"right": "h"})


class NoData(DataSource):
    def prompts(self, split: Split) -> tuple[Prompt, ...]:
        return tiny.PROMPTS


# The functions


def letters(prompt: str, response: str) -> float:
    return len(response.split()) + 10 * len(prompt.split())


def of_batch(prompts: Sequence[str], responses: Sequence[str]) -> Sequence[float]:
    return torch.tensor([letters(*row) for row in zip(prompts, responses, strict=True)])  # type: ignore[return-value]


def turns(messages: list[dict[str, str]], response: str) -> int:
    assert messages[0] == {"role": "user", "content": "a"}
    return len(messages)


def right(prompt: Prompt, response: str) -> bool:
    return bool(prompt.info["right"] == response)


def nothing(prompt: str, response: str) -> None:
    return None


def too_few(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [1.0]


def not_a_number(prompt: str, response: str) -> float:
    return float("nan") if response == "b" else 1.0


def raising(prompt: str, response: str) -> float:
    raise KeyError("of\nmine")


def score(target: str, prompts: Sequence[Prompt] = tiny.PROMPTS[:3], **settings: Any) -> torch.Tensor:
    policy = tiny.scratch()
    config = FunctionConfig(target=f"{HERE}:{target}", **settings)
    source = FunctionReward(config, policy=policy, data=NoData(), seeds=Seeds(0))
    return source.score(policy.encode(prompts, ["a", "b", "c d"][: len(prompts)]))


def test_one_by_one_or_as_a_batch() -> None:
    for settings in ({"target": "letters"}, {"target": "of_batch", "batch": True}):
        scores = score(**settings)
        assert (scores.dtype, scores.tolist()) == (torch.float32, [11.0, 31.0, 22.0])


def test_it_is_given_the_last_message_or_all_of_them_or_the_record() -> None:
    assert score("letters", [TALK]).tolist() == [21.0]
    assert score("turns", [TALK], prompt="messages").tolist() == [3.0]
    assert score("right", [TALK], prompt="record").tolist() == [0.0]
    with pytest.raises(UserError, match=r"reward\.prompt 'txt'.*Did you mean 'text'"):
        FunctionConfig(prompt="txt")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target": "nothing"}, "nothing must return one number, not NoneType None"),
        ({"target": "nothing", "batch": True}, "nothing must return a list of numbers, not NoneType None"),
        ({"target": "too_few", "batch": True}, "too_few returned 1 scores for 3 responses"),
        ({"target": "raising"}, "raising raised KeyError: 'of.*mine'"),
        ({"target": "not_a_number"}, "not_a_number returned nan for a response to prompt 'b c d'"),
        ({"target": "absent"}, "absent cannot be imported .module .*PYTHONPATH"),
        ({"target": "TALK"}, "TALK is Prompt .*, not a function"),
    ],
)
def test_what_it_does_wrong_is_told_in_one_line_with_its_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(AlignbenchError, match=rf"^reward\.target={HERE}:{told}") as failed:
        score(**settings)
    assert "\n" not in str(failed.value)
    assert isinstance(failed.value, NonFiniteError if settings["target"] == "not_a_number" else UserError)


@pytest.mark.parametrize("target", ["", "math", "math:", ":sqrt"])
def test_a_target_that_names_no_function_is_refused_before_a_model_is_loaded(target: str) -> None:
    with pytest.raises(UserError, match="write reward.target=package.module:function"):
        FunctionReward.check_data(FunctionConfig(target=target), NoData())
    with pytest.raises(UserError, match="no_such_package:f cannot be imported .No module"):
        FunctionReward.check_data(FunctionConfig(target="no_such_package:f"), NoData())


def test_its_file_is_part_of_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for text in ("return 1.0", "return 2.0", "return 1.0"):
        (tmp_path / "own_reward_function.py").write_text(f"def f(prompt, response):\n    {text}\n")
        sys.modules.pop("own_reward_function", None)
        config = FunctionConfig(target="own_reward_function:f")
        found.append(FunctionReward(config, policy=tiny.scratch(), data=NoData(), seeds=Seeds(0)).fingerprint())
    assert found[0] == found[2] != found[1]
    sys.modules.pop("own_reward_function", None)
    built_in = FunctionConfig(target="math:pow")
    assert FunctionReward(built_in, policy=tiny.scratch(), data=NoData(), seeds=Seeds(0)).fingerprint() == ""


@dataclass
class Single(FunctionConfig):
    """One score for each response."""

    target: str = f"{HERE}:letters"
    """As in FunctionConfig."""


@dataclass
class Batch(Single):
    """A list of scores for a batch."""

    target: str = f"{HERE}:of_batch"
    """As in FunctionConfig."""
    batch: bool = True
    """As in FunctionConfig."""


@pytest.mark.parametrize("config", [Single, Batch])
def test_it_conforms(config: type) -> None:
    assert conforms("function", config)["fitting_is_reported"] is Status.NOT_APPLICABLE
