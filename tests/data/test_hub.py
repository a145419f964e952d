"""Sets of the hub, by what `datasets` gives for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from alignbench import Split, UserError
from tests.data.writing import Rows, source

ROWS: Rows = [{"prompt": f"q {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(30)]


class Hub:
    """Holds sets by name; remembers what it was asked for."""

    def __init__(self, **sets: Any) -> None:
        self.sets, self.asked, self.reachable = {name.replace("__", "/"): held for name, held in sets.items()}, [], True

    def info(self, name: str, **options: Any) -> None:
        if not self.reachable:
            raise ConnectionError("Name or service not known")

    def load(self, name: str, subset: str | None = None, **options: Any) -> Any:
        self.asked.append((name, subset, options))
        held = self.sets[name]
        if isinstance(held, Exception):
            raise held
        if options["streaming"]:
            return datasets.IterableDatasetDict({split: part.to_iterable_dataset() for split, part in held.items()})
        return held


def splits(**sizes: tuple[int, int]) -> datasets.DatasetDict:
    return datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS[a:b]) for name, (a, b) in sizes.items()})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    monkeypatch.chdir(tmp_path)
    made = Hub(
        owner__name=splits(train=(0, 20), test=(20, 30)),
        owner__parts=ValueError(
            "Config name is missing.\nPlease pick one among the available configs: ['main', 'other']"
        ),
    )
    monkeypatch.setattr(datasets, "load_dataset", made.load)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", made.info)
    return made


@pytest.mark.parametrize("options", [{}, {"streaming": True, "max_rows": 15}])
def test_splits_of_a_set(hub: Hub, options: dict[str, Any]) -> None:
    data = source("owner/name", subset="main", revision="abc", **options)
    assert {p.text for p in data.prompts(Split.EVALUATION)} == {f"q {i}" for i in range(20, 30)}
    train = {p.text for p in data.prompts(Split.TRAIN)}
    assert len(train) == options.get("max_rows", 20) and train <= {f"q {i}" for i in range(20)}
    ((name, subset, given),) = hub.asked
    assert (name, subset, given["revision"], given["streaming"]) == ("owner/name", "main", "abc", bool(options))
    assert not given["download_config"].local_files_only
    assert data.description().files == ("owner/name, train", "owner/name, test")


def test_what_is_cached_serves_where_the_hub_is_out_of_reach(hub: Hub) -> None:
    hub.reachable = False
    assert len(source("owner/name").rankings()) == 30
    assert hub.asked[0][2]["download_config"].local_files_only


def test_refusals(hub: Hub) -> None:
    with pytest.raises(
        UserError,
        match=r"data\.path=owner/parts has several subsets, choose one by data\.subset=: .* \['main', 'other'\]",
    ):
        source("owner/parts")
    with pytest.raises(UserError, match=r"data\.path=owner/other: no such file or folder here, .* download its files"):
        source("owner/other")
    with pytest.raises(UserError, match=r"Unknown split 'human' in data\.train_split\. Choices: test, train\."):
        source("owner/name", train_split="human")
    hub.sets["owner/bad"] = splits(train=(0, 1)).map(lambda row: {"chosen": 3}, remove_columns=["chosen"])
    with pytest.raises(UserError, match=r"owner/bad, train, row 1: 'chosen' must be text"):
        source("owner/bad")


def test_refusals_name_the_setting_of_the_place(hub: Hub, tmp_path: Path) -> None:
    here = tmp_path / "x.jsonl"
    here.write_text("".join(f'{{"prompt": "q {i}", "chosen": "a", "rejected": "b"}}\n' for i in range(9)))
    for option in ("test_path", "prompts_path", "demonstrations_path"):
        with pytest.raises(UserError, match=rf"data\.{option}=owner/other: no such .* give data\.{option}=<folder>"):
            source(here, **{option: "owner/other"})
        how = "choose one by data.subset=" if option == "test_path" else "give the files of one"
        with pytest.raises(UserError, match=rf"data\.{option}=owner/parts has several subsets, {how}: "):
            source(here, **{option: "owner/parts"})
    hub.sets["owner/name"] = splits(train_a=(0, 9), train_b=(9, 20))
    with pytest.raises(UserError, match=r"choose data\.train_split= of train_a, train_b"):
        source("owner/name")
    with pytest.raises(UserError, match=r"give data\.prompts_path the files of one of train_a, train_b"):
        source(here, prompts_path="owner/name")
