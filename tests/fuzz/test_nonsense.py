"""What nobody can mean is refused when the configuration is loaded, in one line that names the option."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from alignbench.app import compose
from alignbench.app.compose import composed, load_config
from alignbench.app.config import SLOTS
from alignbench.app.ready import check_selected
from alignbench.errors import UserError
from tests.fuzz.config import applied, plain
from tests.fuzz.count import told
from tests.fuzz.nonsense import cases

ABSENT = "/nonexistent/x"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{i}", "chosen": "a", "rejected": "b"}) + "\n" for i in range(40)))
    return str(path)


def faulty(case: tuple[str, ...], load: object) -> str:
    """What is wrong with how a case was met; empty: nothing."""
    try:
        load()  # type: ignore[operator]
    except UserError as error:
        return told(error) or ("" if names(str(error), case) else f"names no option: {error}")
    return "accepted"


def names(said: str, case: tuple[str, ...]) -> bool:
    """Whether a refusal names an option of the case: dotted, to its end or to a mapping that it stands in, or its last names behind its slot
    (`algo: n=1 ...`). `path` or `n` alone stands in many a line."""

    def has(name: str) -> bool:
        return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", said) is not None

    options = [name.split(".") for part in case if "." in (name := part.partition("=")[0]) or part == case[-1]]
    return any(
        any(has(".".join(parts[:end])) for end in range(min(2, len(parts)), len(parts) + 1))
        or (said.startswith(f"{parts[0]}: ") and any(map(has, parts[-2:][-len(parts) + 1 :])))
        for parts in options
    )


def test_a_name_is_an_option_and_no_part_of_a_word() -> None:
    assert names("algo.n=1 must be 2 or more", ("algo=best_of_n", "algo.n=1"))
    assert not names("nothing is known of it", ("algo=best_of_n", "algo.n=1"))
    assert not names("the path of it", ("data=hh", "data.path=x"))
    assert not names("algo.names=1", ("algo.n=1",)) and not names("x.algo.n=1", ("algo.n=1",))
    assert names("algo: n=1 is one", ("algo.n=1",)) and not names("algo: none is one", ("algo.n=1",))


def test_what_is_quoted_is_one_value() -> None:
    every = [case[-1] for case in cases("rows", ABSENT)]
    assert "reward.key_variable='A B'" in every
    assert all(option.count("'") % 2 == 0 and "=" in option for option in every)


def test_hundreds_of_values_are_nonsense_and_none_is_accepted(rows: str) -> None:
    """The configuration of each choice is composed once, and of it the component alone is read: the rest takes long."""
    base = functools.cache(lambda chosen: composed(list(chosen)))

    def load(case: tuple[str, ...]) -> None:
        # Groups, and what they need, are chosen; the rest are values.
        chosen = tuple(part for part in case if re.match(r"(algo|model|data|reward|annotator|eval|tracker)=", part))
        cfg, choices = base(chosen)
        values = [part for part in case if part not in chosen]
        slots = {value.split(".")[0] for value in values}
        if not slots <= {*SLOTS}:
            compose._ready(applied(cfg, values), choices)
            return
        part = OmegaConf.create({slot: cfg[slot] for slot in slots}, flags={"struct": True})
        found = OmegaConf.create(plain(applied(part, values)))
        for slot in slots:
            check_selected(compose._selected(found, slot, SLOTS[slot], choices), slot)

    every = list(cases(rows, ABSENT))
    assert len(every) >= 500 and len(set(every)) == len(every)
    found = [(" ".join(case), wrong) for case in every if (wrong := faulty(case, functools.partial(load, case)))]
    assert not found, f"{len(found)} of {len(every)}: {found}"


@pytest.mark.parametrize("step", [7, 50])
def test_a_command_line_refuses_them_too(rows: str, step: int) -> None:
    for case in list(cases(rows, ABSENT))[step::101]:
        assert not faulty(case, functools.partial(load_config, list(case))), case


def test_without_the_nonsense_each_choice_is_loaded(rows: str, tmp_path: Path) -> None:
    """Else anything would be refused."""
    model = tmp_path / "model"
    model.mkdir()
    for given in (
        ["algo=ppo", "algo.updates=10", "eval.every=10", "eval.samples=2"], [f"data.path={rows}", "data=preferences"],
        ["reward=function", "reward.target=math:sqrt"], ["reward=hf", "reward.model=owner/name"],
        ["reward=judge", "reward.model=m"], ["reward=mix", "reward.parts.length=1"], ["model=hf", f"model.path={model}"],
        ["data=arithmetic", "reward=verify", "annotator=reference", "reward.checks.number=1", "reward.pattern='[a]'"],
        ["data=exact", "annotator=exact"], ["tracker=wandb"], ["algo=best_of_n", "tune.metric=helpfulness/gold_reward"],
    ):  # fmt: skip
        load_config(given)
