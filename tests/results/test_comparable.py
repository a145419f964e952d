"""What may stand in one table, from the command line."""

import json
import re
from pathlib import Path

import pytest

from alignbench import Metric, unknown_name
from tests.results.on_disk import HIGHER, dpo, ppo, write, write_with_baseline
from tests.results.on_disk import compare as main


def compare(capsys, *arguments) -> tuple[int, str, str]:
    code = main([*map(str, arguments), "--format", "markdown"])
    found = capsys.readouterr()
    return code, found.out, found.err


def settings(**more) -> dict:
    return {**ppo(), "data": {"world_seed": 0}, "sft": {"updates": 100, "micro_batch_size": 8}, **more}


REWARD = {"reward": "learned"}
CLASHES = {
    "data source": (settings(), settings(), {"data": "hh"}, "other data, data is hh in .*, world in"),
    "data setting": (settings(), settings(data={"world_seed": 7}), {}, "data.world_seed is 0 in ppo .*, 7 in ppo"),
    "evaluation": (settings(), settings(eval={"prompts": 5}), {}, "other evaluation settings, eval.prompts"),
    "reward model": (settings(), settings(), {"reward": "gold"}, "other reward model, reward is gold in .*, learned in"),
    "reward setting": (
        settings(reward={"loss": "a"}), settings(reward={"loss": "b"}), REWARD, "other reward model, reward.loss",
    ),
    "version": (settings(), settings(flag=1), {"packages": {"alignbench": "9"}}, "other version, alignbench is 0.1"),
    "SFT budget": (settings(), settings(sft={"updates": 5}), {}, "budget of the SFT model, sft.updates"),
    "rankings": (settings(rankings={"prompts": 9}), settings(rankings={"prompts": 5}), {}, "number of rankings"),
    "budget": (
        settings(algo={"name": "ppo", "updates": 10}), settings(algo={"name": "ppo", "updates": 20}), {},
        "other training budget, algo.updates is 10 in ppo .*updates=10, 20 in",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CLASHES)
def test_what_makes_numbers_incomparable_is_refused_and_shown_by_force(tmp_path, capsys, case):
    one, other, changes, message = CLASHES[case]
    write(tmp_path, one, **(REWARD | {"packages": {"alignbench": "0.1"}}))
    write(tmp_path, other, **({"packages": {"alignbench": "0.1"}} | REWARD | changes), config_hash="other")
    code, out, err = compare(capsys, tmp_path)
    assert (code, out) == (2, "")
    what, do = err.splitlines()
    assert "other" in what and "--force" in do
    assert re.search(message, err)
    code, out, err = compare(capsys, tmp_path, "--force")
    assert code == 0 and "- Not comparable: other" in out
    header = out.splitlines()[0].split(" | ")
    assert len(header) == 3 and header[1] != header[2], "the labels tell the difference"
    assert "=" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("one", "other", "changes"),
    [
        (ppo(0.1), ppo(0.2), {}),
        (settings(annotator={"b_agree": 0.0}), settings(annotator={"b_agree": 2.7}), {"annotator": "honest"}),
        (settings(), settings(sft={"updates": 100, "micro_batch_size": 4}), {}),
        (
            settings(algo={"name": "ppo", "updates": 10}),
            settings(algo={"name": "dpo", "updates": 500}),
            {"algo": "dpo"},
        ),
        (settings(), settings(), {"reward": None, "algo": "dpo"}),
        (settings(eval={"families": ["a"]}), settings(eval={"families": ["a", "b"]}), {}),
        (settings(model={"size": 1}), settings(model={"size": 2}), {"model": "micro"}),
    ],
    ids=["coefficient", "annotator", "memory", "algorithms", "no reward model", "families", "model"],
)
def test_what_people_vary_on_purpose_is_compared(tmp_path, capsys, one, other, changes):
    write(tmp_path, one, reward="learned")
    write(tmp_path, other, **({"reward": "learned"} | changes), config_hash="other")
    code, out, _ = compare(capsys, tmp_path)
    assert code == 0 and len(out.splitlines()[0].split(" | ")) == 3


def test_an_annotator_sweep_says_that_its_proxy_rewards_are_of_different_reward_models(tmp_path, capsys):
    proxy = {"optimization/proxy_reward": Metric(1.0, 0.1, 9, HIGHER)}
    for name in ("honest", "mild"):
        given = settings(annotator={"b": name})
        write(tmp_path, given, annotator=name, reward="learned", metrics=proxy)
    code, out, _ = compare(capsys, tmp_path)
    assert code == 0 and "- 2 different reward models: optimization/proxy_reward and" in out


def test_choices_that_are_numbers_stand_by_their_value():
    told = str(unknown_name("seed", "7", ["100", "-1", "mild", "25", "0.05", "1e-4", "0.2", "1600", "honest"]))
    assert told.endswith("Choices: -1, 1e-4, 0.05, 0.2, 25, 100, 1600, honest, mild.")


def test_only_chooses_runs(tmp_path, capsys):
    write_with_baseline(tmp_path, settings(), 0.75)
    write(tmp_path, settings(), 0.25, data="hh")
    code, out, _ = compare(capsys, tmp_path, "--only", "data=world")
    assert code == 0 and "0.75" in out and "0.25" not in out
    code, out, _ = compare(capsys, tmp_path, "--only", "data=world", "--only", "sft.updates=100")
    assert code == 0 and "0.75" in out
    refused = {
        "data=none": "Unknown data 'none' in --only data=none. Choices: hh, world.",
        "data=world,hhh": "Unknown data 'hhh' in --only data=world,hhh. Did you mean 'hh'? Choices: hh, world.",
        "=x": "--only =x: write KEY=VALUE, as in --only data=world.",
        "sft.updates=7": "Unknown sft.updates '7' in --only sft.updates=7. Choices: 100.",
        "sft.update=100": "none of the runs has sft.update;",
        "reward=learned": "Unknown reward 'learned' in --only reward=learned. Choices: None.",
        "data": "KEY=VALUE",
    }
    for condition, message in refused.items():
        code, out, err = compare(capsys, tmp_path, "--only", condition)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("condition", ["sft.updates=100", "sft.updates=1e2", "reward=None", "data=world", "seed=0"])
def test_only_reads_numbers_and_what_is_null(
    condition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_with_baseline(tmp_path, settings(), 0.75)
    code, out, err = compare(capsys, tmp_path, "--only", condition)
    assert code == 0 and "0.75" in out, err


def test_what_the_table_does_not_show_is_said(tmp_path, capsys):
    write(tmp_path, ppo(seed=0, device="cpu"), counts={"facts": 100}, hardware={"cpu": "A"})
    write(tmp_path, ppo(seed=1, device="cuda"), counts={"facts": 90}, hardware={"cpu": "B"}, git_commit="other")
    code, out, _ = compare(capsys, tmp_path)
    (line,) = [line for line in out.splitlines() if line.startswith("- Not the same in all runs")]
    assert code == 0
    for word in ("git commit (c0ffee, other)", "cpu (A, B)", "device (cpu, cuda)", "number of facts (100, 90)"):
        assert word in line


def test_an_unknown_baseline_lists_the_rows(tmp_path, capsys):
    write_with_baseline(tmp_path, ppo(), 0.5)
    write(tmp_path, dpo(), 0.5)
    code, out, err = compare(capsys, tmp_path, "--baseline", "pop")
    assert (code, out) == (2, "")
    assert "Unknown row 'pop'" in err and "Choices: dpo, ppo, sft" in err and err.count("\n") == 1


def test_more_rows_than_a_reader_reads_have_differences_only_where_asked(tmp_path, capsys):
    for i in range(61):
        write(tmp_path, ppo(i / 100))
    code, out, _ = compare(capsys, tmp_path)
    assert code == 0 and "61 rows: --differences" in out and "examples.parquet" not in out
    code, out, _ = compare(capsys, tmp_path, "--differences")
    assert code == 0 and out.count("no examples.parquet") == 61
    assert main([str(tmp_path)]) == 0
    assert "The first 60 of 61 rows" in " ".join(capsys.readouterr().out.split())


def test_the_format_follows_the_file(tmp_path, capsys):
    write_with_baseline(tmp_path / "runs", ppo(), 0.75)
    starts = {"a.md": "| metric", "a.csv": "row,algo", "a.tex": "% \\usepackage", "a.json": "{", "a.txt": "  "}
    for name, start in starts.items():
        assert main([str(tmp_path / "runs"), "--output", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(start)
        assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "a.json").read_text())["differences"] == []
    assert main([str(tmp_path / "runs"), "--output", str(tmp_path / "absent" / "a.md")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(tmp_path / "runs"), "--format", "html"]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_that_were_defined_otherwise_do_not_stand_beside_new_ones(tmp_path, capsys, seed):
    """As another row, and as another seed of one row."""
    write(tmp_path, settings())
    old = write(tmp_path, settings(seed=1) if seed else settings(sft={"updates": 100}, algo={"name": "dpo"}))
    raw = json.loads((old.path / "result.json").read_text())
    for metric in raw["metrics"].values():
        for name in ("clusters", "low", "high", "share"):
            del metric[name]
    (old.path / "result.json").write_text(json.dumps(raw | {"schema_version": 4}))
    code, out, err = compare(capsys, tmp_path)
    assert (code, out) == (2, "") and err.count("\n") == 2
    assert "other definition of intervals, of budgets and of the KL away from temperature 1, 1 of 2 records" in err
    assert f"are of a schema version before 5, such as {old.path.name}: run them again" in err
    code, out, _ = compare(capsys, old.path)
    assert code == 0 and "±" not in out.splitlines()[2]
