"""Two processes that share one model give what one gives that holds it whole; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from alignbench_hf.config import PretrainedConfig
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from alignbench import UserError, distributed, functional
from alignbench.pretrained import Checkpoint
from alignbench.pretrained.checkpoint import divided
from tests import tiny
from tests.distributed import sharded
from tests.distributed.test_processes import Both, torchrun


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    sharded.write_models(folder)
    sharded.main(folder)
    torchrun(sharded.__file__, str(folder))
    return folder


@pytest.fixture(params=sharded.MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def both(folder: Path, name: str) -> Both:
    return Both(*(sharded.read(folder, who, name) for who in ("one", "two")))


def test_each_process_holds_half_of_every_block(both: Both) -> None:
    assert both.two["held"] == both.two["held/after"] == both.one["held"] / 2


def test_no_more_than_two_blocks_are_whole_at_once(both: Both) -> None:
    assert both.one["whole"] == sharded.LAYERS
    assert 1 <= both.two["whole"] <= 2, "the one that is computed, and the next"


@pytest.mark.parametrize("rows", ["5", "1"])  # they divide unevenly; one process has none
def test_sampling_and_scoring_agree(both: Both, rows: str) -> None:
    own = [key for key in both.one if key.startswith(f"{rows}/")]
    assert own and [key for key in both.two if key.startswith(f"{rows}/")] == own
    assert torch.equal(both.one[f"{rows}/ids"], both.two[f"{rows}/ids"])
    for key in own:
        torch.testing.assert_close(both.two[key], both.one[key], atol=1e-4, rtol=1e-4, msg=key)
        assert both.one[key].abs().sum() > 0


def test_updates_agree(both: Both) -> None:
    own = [key for key in both.one if key[0] in "012" and key[1] == " "]
    assert own and sorted(key for key in both.two if key[0] in "012" and key[1] == " ") == sorted(own)
    for key in own:
        if not key.endswith("/accuracy"):  # at first every margin is 0 but for rounding
            torch.testing.assert_close(both.two[key], both.one[key], atol=1e-3, rtol=1e-3, msg=key)


def test_one_process_reads_what_two_have_saved(folder: Path, name: str, both: Both) -> None:
    assert torch.equal(both.two["saved/before"], both.two["saved/again"])
    one, two = (load_file(folder / who / name / "adapter" / "adapter_model.safetensors") for who in ("one", "two"))
    assert {key: tensor.shape for key, tensor in one.items()} == {key: tensor.shape for key, tensor in two.items()}
    again = sharded.policy(folder, name)
    again.load(folder / "two" / name / "adapter")
    with torch.no_grad():
        found = again.logprobs(tiny.sequences(again)).logprobs
    torch.testing.assert_close(found, both.two["saved/again"], atol=1e-4, rtol=1e-4)


def test_one_process_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match=r"model\.shard=true divides a model among several processes, and this is one"):
        PretrainedConfig(path=str(tmp_path), shard=True).ready()
    monkeypatch.setenv("WORLD_SIZE", "2")
    PretrainedConfig(path=str(tmp_path), shard=True).ready()


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_weights_are_not_divided(quantization: str, folder: Path) -> None:
    with pytest.raises(UserError, match=rf"model\.quantization={quantization} packs them"):
        PretrainedConfig(shard=True, quantization=quantization)
    with pytest.raises(UserError, match="quantised weights cannot be divided"):
        Checkpoint(folder / "tied").model(AutoModelForCausalLM, device=tiny.CPU, quantization=object(), shards=2)


def test_a_model_whose_plan_leaves_weights_out_is_refused() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_layer=2, n_embd=16, n_head=2))
    with pytest.raises(UserError, match=r"GPT2LMHeadModel cannot be divided .* leaves out .*Use model\.shard=false"):
        divided(model, 2)


def _pieces(monkeypatch: pytest.MonkeyPatch, rows: int, size: int, processes: int) -> list[list[list[int]]]:
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    found = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found.append([piece.tolist() for piece in distributed.passes(torch.arange(rows), size)])
    return found


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_in_step_all_have_as_many_pieces(monkeypatch: pytest.MonkeyPatch, processes: int, size: int) -> None:
    monkeypatch.setattr(distributed, "_in_step", True)
    for rows in range(1, 14):
        found = _pieces(monkeypatch, rows, size, processes)
        assert len({len(pieces) for pieces in found}) == 1
        assert all(0 < len(piece) <= size + 1 for pieces in found for piece in pieces)
        counted = [row for rank, pieces in enumerate(found) for piece in pieces for row in piece if rank < rows]
        assert sorted(counted) == list(range(rows))
        monkeypatch.setattr(distributed, "rank", lambda: processes - 1)
        assert functional.idles(rows) == (rows < processes)


def test_gradients_of_no_row_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert [piece.tolist() for piece in functional.own_pieces(torch.arange(1), 4)] == [[0]], (
        "out of step nothing is held up"
    )
    monkeypatch.setattr(distributed, "_in_step", True)
    with pytest.raises(UserError, match=r"1 rows are trained on at once, and 2 processes share one model"):
        list(functional.own_pieces(torch.arange(1), 4))
