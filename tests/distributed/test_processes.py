"""Two processes give what one gives, up to floating-point order; and what happens where they cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from alignbench import Seeds, UserError, distributed
from alignbench.app.compose import load_config
from alignbench.pipeline.preparation import refuse_impossible
from alignbench.plugins import Kind, registry
from tests.core.harness import SMALL, command, lines, records
from tests.distributed import processes
from tests.distributed.processes import algorithms
from tests.rewards.server import Answer, stub

HERE = Path(__file__).parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def torchrun(*arguments: str) -> str:
    """What two processes print."""
    done = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@dataclass(frozen=True)
class Both:
    one: dict[str, Tensor]
    two: dict[str, Tensor]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("processes")
    processes.main(str(folder / "one"))
    torchrun(str(HERE / "processes.py"), str(folder / "two"))
    return Both(load_file(folder / "one"), load_file(folder / "two"))


def test_sampling_and_scoring_agree(both: Both) -> None:
    assert torch.equal(both.one["ids"], both.two["ids"]), "the tokens of a row do not depend on who decodes it"
    assert torch.equal(both.one["alone"], both.two["alone"])
    for name in ("sampled", "finished", "logprobs", "entropy", "values"):
        torch.testing.assert_close(both.two[name], both.one[name], atol=1e-5, rtol=1e-5)
    assert both.one["values"].abs().sum() > 0


@pytest.mark.parametrize("name", [*(component.name for component in algorithms()), "ppo on one trunk"])
def test_an_update_on_two_processes_is_that_of_one(name: str, both: Both) -> None:
    own = [key for key in both.one if key.startswith(f"{name}/")]
    assert own and [key for key in both.two if key.startswith(f"{name}/")] == own
    for key in own:
        if key == f"{name}/0/accuracy":
            continue  # every margin is 0 but for rounding
        torch.testing.assert_close(
            both.two[key], both.one[key], atol=2e-4, rtol=2e-4, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_an_update_is_put_together_in_two_calls(both: Both) -> None:
    assert both.two["collectives/tensors"] > 50, "a call for each would be that many"
    assert both.one["collectives/of an update"] == 0
    assert both.two["collectives/of an update"] == 2, "the gradients, and the figures"


def test_figures_are_summed_by_their_names(both: Both) -> None:
    for name, alone in both.one.items():
        if name.startswith(("collectives/many", "collectives/uneven")):
            assert both.two[name] == pytest.approx(float(alone)), name
    assert both.two["collectives/many 191"] == 191
    assert both.two["collectives/uneven first"] == 2


def test_every_built_in_algorithm_shares_its_batches() -> None:
    """But for the trainers of another library, which run a loop of their own."""
    own = [c for c in registry().of(Kind.ALGORITHM) if c.distribution == "alignbench" and not c.name.startswith("trl_")]
    assert [c.name for c in own if not c.load().shares_batches] == []


def test_what_cannot_share_is_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config([*SMALL, "algo=ppo"])
    data = config.data.build(seeds=Seeds(0))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    refuse_impossible(config, data, None)
    monkeypatch.setattr(config.algo.component.load(), "shares_batches", False)
    with pytest.raises(UserError, match=r"algo=ppo cannot share its batches among 2 processes"):
        refuse_impossible(config, data, None)
    monkeypatch.setattr(config.algo.component.load(), "shares_batches", True)
    judged = load_config([*SMALL, "algo=ppo", "reward@judge=length"])
    refuse_impossible(judged, data, None)
    monkeypatch.setattr(judged.judge.component.load(), "shares_batches", False, raising=False)
    with pytest.raises(UserError, match=r"reward@judge=length cannot share its batches among 2 processes"):
        refuse_impossible(judged, data, None)


def test_one_process_waits_for_the_other_and_a_judge_is_asked_once(tmp_path: Path) -> None:
    """The main process is away for three times as long as torch would wait. A judge's answer, and its refusal, reach both."""

    def script(number: int, body: dict[str, Any]) -> Answer:
        refused = body["messages"][-1]["content"] == "refuse"
        return Answer(status=400, text="no") if refused else Answer("Rating: 7")

    with stub(script) as server:
        torchrun(str(HERE / "waiting.py"), str(tmp_path), server.url)
        assert len(server.asked) == 2
    main, other = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    assert (main.pop("requests"), other.pop("requests")) == (2, 0)
    assert main == other
    assert (main["waited"], main["answer"]) == ("long", [7.0])
    assert "refused the question: HTTP 400" in main["refusal"]
    assert "results_dir=" in main["begun"] and "results_dir=" in main["row"]


@dataclass
class Machine:
    """Some GPUs; which of them was taken, and what a group of processes was joined by."""

    patch: pytest.MonkeyPatch
    taken: list[int] = field(default_factory=list)
    joined: list[tuple[object, ...]] = field(default_factory=list)

    def has(self, gpus: int, **environment: int) -> None:
        self.patch.setattr(torch.cuda, "is_available", lambda: True)
        self.patch.setattr(torch.cuda, "device_count", lambda: gpus)
        self.patch.setattr(torch.cuda, "set_device", self.taken.append)
        for name, value in environment.items():
            self.patch.setenv(name, str(value))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return Machine(monkeypatch)


@pytest.mark.parametrize(
    ("device", "environment", "taken"),
    [
        ("auto", {}, [0]),
        ("cuda:2", {}, [2]),
        ("cpu", {}, []),
        ("cuda:9", {}, []),  # refused where devices are chosen
        ("cuda", {"LOCAL_WORLD_SIZE": 4, "LOCAL_RANK": 3}, [3]),
        ("cuda:1", {"LOCAL_WORLD_SIZE": 1, "LOCAL_RANK": 0}, [1]),
    ],
)
def test_each_process_takes_a_gpu(machine: Machine, device: str, environment: dict[str, int], taken: list[int]) -> None:
    machine.has(4, **environment)
    with distributed.joined(device):
        assert machine.taken == taken


@pytest.mark.parametrize(
    ("device", "processes", "message"),
    [
        ("cuda:0", 2, r"device=cuda:0 would put all 2 processes"),
        ("auto", 5, r"5 processes on a machine of 4 usable GPUs"),
    ],
)
def test_two_processes_do_not_take_one_gpu(machine: Machine, device: str, processes: int, message: str) -> None:
    machine.has(4, WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes, LOCAL_RANK=1)
    with pytest.raises(UserError, match=message), distributed.joined(device):
        raise AssertionError("joined")


def test_decisions_do_not_go_through_the_gpus(machine: Machine) -> None:
    machine.has(2, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, LOCAL_RANK=0)
    joined = lambda backend, timeout: machine.joined.append((backend, timeout))  # noqa: E731
    machine.patch.setattr(torch.distributed, "init_process_group", joined)
    machine.patch.setattr(distributed.atexit, "register", lambda act: None)
    with pytest.raises(UserError, match="1 of 2 processes joined"), distributed.joined("cuda"):
        raise AssertionError("joined")
    assert machine.joined == [("cpu:gloo,cuda:nccl", distributed.PATIENCE)]


@pytest.mark.slow
def test_a_run_on_two_processes_measures_what_one_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole pipeline, within what docs/sweeps.md states: sums in another order round otherwise, and a sampled token
    whose chance lies at the border of two tokens flips. Before anything is sampled the curves are the same."""
    options = [*SMALL, "algo.updates=2", "device=cpu", "cache=false"]
    assert command(capsys, *options, f"results_dir={tmp_path / 'one'}").code == 0
    said = torchrun("-m", "alignbench", *options, f"results_dir={tmp_path / 'two'}")
    assert said.count("The run lies in") == 1, "the main process alone speaks"
    one, two = (next((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert {p.relative_to(one) for p in one.rglob("*")} == {p.relative_to(two) for p in two.rglob("*")}
    for ours, theirs in zip(lines(one / "train.jsonl"), lines(two / "train.jsonl"), strict=True):
        assert (ours["stage"], ours["update"]) == (theirs["stage"], theirs["update"])
        if ours["stage"] in ("pretrain", "sft"):
            numbers = [{k: v for k, v in line.items() if k != "stage"} for line in (ours, theirs)]
            assert numbers[1] == pytest.approx(numbers[0], rel=1e-4)
    for name in ("rankings.jsonl", "sft/generations.jsonl"):
        pairs = list(zip(lines(one / name), lines(two / name), strict=True))
        key = "responses" if name == "rankings.jsonl" else "response"
        assert sum(ours[key] == theirs[key] for ours, theirs in pairs) >= 0.9 * len(pairs)
    for alone, shared in zip(records(one), records(two), strict=True):
        for name in ("optimization/length", "optimization/kl", "diversity/entropy"):  # those with a spread at this size
            metric = alone["metrics"][name]
            apart = abs(shared["metrics"][name]["value"] - metric["value"])
            assert apart <= 3 * metric["stderr"] + 1e-3, name


def test_alone_everything_is_as_if_there_were_no_others() -> None:
    rows, tensor = torch.arange(5), torch.ones(2)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert torch.equal(distributed.share(rows), rows)
    distributed.add_up(tensor)
    assert tensor.tolist() == [1, 1]
    assert distributed.total({"a": 1.0, "b": -2.0}) == {"a": 1.0, "b": -2.0}
    assert distributed.agreed(lambda: "yes") == "yes"
