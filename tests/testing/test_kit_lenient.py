"""What the contract allows, and a check must let pass."""

from __future__ import annotations

import contextlib
from dataclasses import astuple, make_dataclass, replace
from typing import Any

import pytest
import torch

from alignbench.bounds import bounded
from alignbench.plugins import Component, resolve
from alignbench.records import ExampleScore, Labelled, Split
from alignbench.selection import with_defaults
from alignbench.testing import NotApplicable, PropertyBroken, checks_of
from alignbench.testing.annotators.probability import plausible


def run(component: Component, name: str, seed: int = 0) -> str | None:
    (found,) = (check for check in checks_of(component) if check.name == name)
    return found.run(component, seed)


def own(name: str, made: type) -> Component:
    return replace(resolve(name), target=f"{__name__}:{made.__name__}")


# Algorithms


class WholeGroups(resolve("rloo").load()):  # type: ignore[misc]
    """Minibatches of whole groups."""

    def _optimise(self, experience: Any) -> dict[str, float]:
        config = self._config
        rows = torch.arange(config.batch_size).reshape(-1, config.samples_per_prompt)
        for _ in range(config.epochs):
            for part in rows[torch.randperm(len(rows), generator=self._shuffle)].chunk(config.minibatches):
                self._step(experience, part.flatten())
        return {}


class TwoSteps(resolve("rloo").load()):  # type: ignore[misc]
    """Two steps on each batch, whatever its epochs."""

    def _optimise(self, experience: Any) -> dict[str, float]:
        return [super(TwoSteps, self)._optimise(experience) for _ in range(2)][-1]


class Static(resolve("grpo").load()):  # type: ignore[misc]
    """Its loss is stated by a function that needs no class."""

    @staticmethod
    def stated_loss(config: Any, terms: Any) -> Any:
        return resolve("grpo").load().stated_loss(config, terms)


def test_groups_may_stay_whole() -> None:
    component = with_defaults(own("rloo", WholeGroups), {"samples_per_prompt": 8, "batch_size": 64})
    for seed in range(3):
        run(component, "every_epoch_sees_each_row_once", seed)


def test_an_algorithm_may_have_a_loop_of_its_own() -> None:
    assert run(own("rloo", TwoSteps), "temperature_divides_the_logits")


def test_a_static_method_states_a_loss() -> None:
    assert run(own("grpo", Static), "steps_follow_the_stated_loss")


@pytest.mark.parametrize(
    "name", ["every_epoch_sees_each_row_once", "steps_are_those_of_adamw", "metrics_are_what_they_are_called"]
)
def test_groups_may_be_large(name: str) -> None:
    run(with_defaults(resolve("grpo"), {"samples_per_prompt": 64, "batch_size": 128}), name)


def test_an_optimizer_without_betas_is_none_of_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbench.functional.torch.optim.AdamW", lambda groups, **_: torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(PropertyBroken, match="has no betas: it is no AdamW"):
        run(resolve("rloo"), "steps_are_those_of_adamw")


# Annotators


class Certain(resolve("mild").load()):  # type: ignore[misc]
    """Without noise."""

    def preference(self, prompt: Any, first: str, second: str, *, finished: Any = (True, True)) -> float:
        worth = [self.utility(prompt, text, finished=end) for text, end in zip((first, second), finished, strict=True)]
        return 0.5 * (1 + (worth[0] > worth[1]) - (worth[0] < worth[1]))

    def _noise(self, *_: Any) -> float:
        return 0.0


class Reversed(Certain):
    """Whose utility is the wrong way round."""

    def preference(self, *about: Any, **options: Any) -> float:
        return 1.0 - super().preference(*about, **options)


class SureByDefault(resolve("mild").load()):  # type: ignore[misc]
    """States nothing by its defaults, and something wrong under other settings."""

    @property
    def knows_probabilities(self) -> bool:
        return bool(astuple(self._config) != astuple(resolve("mild").config()))

    def preference(self, *about: Any, **options: Any) -> Any:
        return 0.9 if self.knows_probabilities else None


def test_an_annotator_may_be_certain() -> None:
    run(own("mild", Certain), "terms_make_the_utility")
    with pytest.raises(PropertyBroken, match="with 0, and its utility is"):
        run(own("mild", Reversed), "terms_make_the_utility")


def test_every_known_setting_is_checked() -> None:
    try:
        run(own("mild", SureByDefault), "preference_is_a_probability")
    except NotApplicable as error:  # pytest would skip this test
        pytest.fail(f"not applicable: {error}")
    except PropertyBroken as broken:
        assert "and the other way round 0.9" in str(broken)
    else:
        pytest.fail("nothing was found")


@pytest.mark.parametrize(
    ("won", "trials", "p", "can_be"),
    [
        (3, 600, 5e-4, True),
        (30, 600, 5e-4, False),
        (597, 600, 1 - 5e-4, True),
        (0.5, 1, 0.0, False),
        (0, 600, 0.0, True),
        (30, 60, 0.5, True),
        (25.5, 60, 0.5, True),
        (60, 60, 0.5, False),
        (360, 600, 0.5, False),
        (300, 600, float("nan"), False),
    ],
)
def test_what_chance_can_do(won: float, trials: int, p: float, can_be: bool) -> None:
    assert plausible(won, trials, p) is can_be


# Options


def with_option(name: str, target: str = "", *, default: float, **limits: float) -> Component:
    """The component with one more option, a number."""
    known = resolve(name)
    told = {"__doc__": known.config.__doc__, "__module__": known.config.__module__}
    config = make_dataclass(
        "More", [("more", float, bounded(default, **limits))], bases=(known.config,), namespace=told
    )
    return replace(known, name="more", config=config, target=target or known.target)


class Multiplied(resolve("length").load()):  # type: ignore[misc]
    """Reads its further option."""

    def __init__(self, config: Any, **parts: Any) -> None:
        super().__init__(config, **parts)
        self._config = config

    def score(self, samples: Any) -> torch.Tensor:
        return super().score(samples) * self._config.more


@pytest.mark.parametrize(
    ("name", "check", "option"),
    [
        ("mild", "options_change_its_taste", {"default": 0.0, "least": 0.0, "most": 1.0}),
        ("length", "options_change_scores", {"default": 1.0, "least": 0.9, "most": 2.0}),
    ],
)
def test_a_value_that_is_refused_is_no_change(name: str, check: str, option: dict[str, float]) -> None:
    with pytest.raises(PropertyBroken, match="Another more changes nothing"):
        run(with_option(name, **option), check)


def test_an_option_may_refuse_its_half() -> None:
    run(with_option("length", f"{__name__}:Multiplied", default=1.0, least=0.9, most=2.0), "options_change_scores")


class RoundedScore(Multiplied):
    """Its further option does nothing but round."""

    def score(self, samples: Any) -> torch.Tensor:
        found: torch.Tensor = super().score(samples) / self._config.more
        return (found + self._config.more) - self._config.more


class Weighed(resolve("mild").load()):  # type: ignore[misc]
    """Its further option weighs each probability, by a hundredth."""

    def __init__(self, config: Any, **parts: Any) -> None:
        super().__init__(config, **parts)
        self._weight = 1 - config.more / 100

    def preference(self, *asked: Any, **rest: Any) -> float | None:
        found = super().preference(*asked, **rest)
        return None if found is None else self.weighed(found)

    def weighed(self, p: float) -> float:
        return p * self._weight


class RoundedWeight(Weighed):
    """Its further option does nothing but round."""

    def weighed(self, p: float) -> float:
        return super().weighed(p) / self._weight


RULES = [
    ("mild", "options_change_its_taste", Weighed, RoundedWeight),
    ("length", "options_change_scores", Multiplied, RoundedScore),
]


@pytest.mark.parametrize(("name", "check", "acts", "rounds"), RULES, ids=[check for _, check, *_ in RULES])
def test_rounding_is_no_effect_and_a_small_effect_is_one(name: str, check: str, acts: type, rounds: type) -> None:
    run(with_option(name, f"{__name__}:{acts.__name__}", default=0.3), check)
    with pytest.raises(PropertyBroken, match="Another more changes nothing"):
        run(with_option(name, f"{__name__}:{rounds.__name__}", default=0.3), check)


# Evaluations


class AsksAgain(resolve("helpfulness").load()):  # type: ignore[misc]
    """Its gold reward is that of responses that it asks for itself."""

    def evaluate(self, subject: Any) -> Any:
        prompts = list({g.prompt.id: g.prompt for g in subject.generations}.values())
        asked = subject.respond(prompts, 1)
        return [
            ExampleScore("helpfulness/gold_reward", g.prompt.id, g.verdict.gold_reward, g.prompt.cluster) for g in asked
        ]


@pytest.mark.parametrize("name", ["better_verdicts_are_never_worse", "prompts_are_scored_by_themselves"])
def test_an_evaluation_may_ask_again(name: str) -> None:
    with contextlib.suppress(NotApplicable):  # of verdicts: its own do not change
        run(own("helpfulness", AsksAgain), name)


# Data


class Bounded(resolve("data=world").load()):  # type: ignore[misc]
    """Has some fifty demonstrations, whatever is asked for beyond that."""

    def demonstrations(self) -> Any:
        return super().demonstrations()[:50]


class OneShort(Bounded):
    """One less than asked for."""

    def demonstrations(self) -> Any:
        found = super().demonstrations()
        return found[: max(len(found) - 1, 0)]


class Unlabelled(Bounded):
    """Its labelled responses say nothing."""

    def labelled(self) -> Any:
        return [Labelled(self.prompts(Split.TRAIN)[0], " ", True)]


def test_a_limit_may_be_more_than_there_is() -> None:
    run(own("data=world", Bounded), "limits_hold")
    with pytest.raises(PropertyBroken, match="With demonstrations="):
        run(own("data=world", OneShort), "limits_hold")


def test_labels_say_something() -> None:
    with pytest.raises(PropertyBroken, match=r"Most responses of its labels are empty \(1 of 1\)"):
        run(own("data=world", Unlabelled), "something_is_said")
