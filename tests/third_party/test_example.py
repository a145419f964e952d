"""The plugin of a third party, installed as a third party would install it, used through the public door alone."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch

import alignbench
from alignbench import (
    POLICY,
    NonFiniteError,
    Prompt,
    Rollout,
    Samples,
    ScoredRollout,
    Seeds,
    Sequences,
    TokenScores,
    UserError,
    functional,
)
from alignbench.app.compose import load_config
from alignbench.testing import (
    AlgorithmConformance,
    OptimizerConformance,
    RewardConformance,
    SamplerConformance,
    ScheduleConformance,
    Status,
    check,
)

SOURCE = Path(__file__).parent / "alignbench_example"

# The smallest run that goes through every stage. Nothing is asserted about what it learns.
TINY = [
    *(
        "algo=reinforce",
        "algo.optimizer=lion",
        "algo.lr_schedule=staircase",
        "model.sampler=reread",
        "algo.updates=2",
        "algo.batch_size=16",
        "algo.micro_batch_size=16",
    ),
    *("stages=[filter_demonstrations,say]", "stage_options.say.prompts=8"),
    *("reward=keyword", "pretrain.updates=1", "sft.updates=1"),
    *("data.train_prompts=64", "data.demonstrations=64", "data.evaluation_questions=8"),
    *("eval=quick", "eval.questions=4", "eval.samples=2"),
]

try:
    distribution("alignbench-example")
    missing = False
except PackageNotFoundError:
    missing = True
installed = pytest.mark.skipif(
    missing, reason="alignbench-example is not installed: pip install --no-deps tests/third_party/alignbench_example"
)


@installed
class TestReinforce(AlgorithmConformance):
    @pytest.fixture
    def component(self) -> str:
        return "reinforce"


@installed
class TestDPOP(AlgorithmConformance):
    @pytest.fixture
    def component(self) -> str:
        return "dpop"


@installed
class TestKeyword(RewardConformance):
    @pytest.fixture
    def component(self) -> str:
        return "reward=keyword"


@installed
class TestLion(OptimizerConformance):
    @pytest.fixture
    def component(self) -> str:
        return "optimizer=lion"


@installed
class TestStaircase(ScheduleConformance):
    @pytest.fixture
    def component(self) -> str:
        return "staircase"


@installed
class TestReread(SamplerConformance):
    @pytest.fixture
    def component(self) -> str:
        return "sampler=reread"


def command(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), environment.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "alignbench", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


# The public door


def test_imports_only_the_public_door() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) >= 3
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                assert not [name for name in names if name.split(".")[0] == "alignbench"], f"{file.name}: {names}"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alignbench":
                assert node.module == "alignbench", f"{file.name}: from {node.module}"
                outside = {alias.name for alias in node.names} - {*alignbench.__all__, "functional"}
                assert not outside, f"{file.name}: {outside}"


@installed
def test_listed_by_the_plugins_command(tmp_path: Path) -> None:
    done = command("plugins", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    components = [
        ("algo", "reinforce"),
        ("algo", "dpop"),
        ("reward", "keyword"),
        ("optimizer", "lion"),
        ("schedule", "staircase"),
        ("sampler", "reread"),
        ("stage", "say"),
        ("format", "stars"),
        ("command", "word-share"),
        ("section", "word-share"),
    ]
    for kind, name in components:
        row = rf"{kind}\W+{name}\W.*alignbench-example"
        assert re.search(row, done.stdout), f"no row of {kind}={name} in:\n{done.stdout}"


WITNESS = """
import os
from alignbench import hookimpl

def note(*words):
    with open(os.environ["WITNESS"], "a") as file:
        print(*words, file=file)

@hookimpl
def run_started(event):
    note("started", event.algo, event.data, os.path.isdir(event.directory))

@hookimpl
def run_step(event):
    note("step", event.stage, event.update, len(event.metrics))

@hookimpl
def run_finished(event):
    note("finished", event.status, len(event.metrics))
"""


def witness(folder: Path) -> Path:
    """A second installed distribution, which only watches: it writes down every call around a run."""
    (folder / "witness_plugin.py").write_text(WITNESS)
    info = folder / "witness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: witness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alignbench]\nwitness = witness_plugin\n")
    return folder


@installed
@pytest.mark.slow
def test_runs_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole pipeline with this algorithm and this reward, and the hooks around it, through the command line."""
    (tmp_path / "site").mkdir()
    notes, results = tmp_path / "notes.txt", tmp_path / "runs"
    monkeypatch.setenv("WITNESS", str(notes))
    done = command(*TINY, f"results_dir={results}", cwd=tmp_path, path=witness(tmp_path / "site"))
    assert done.returncode == 0, done.stdout + done.stderr

    (directory,) = (path for path in results.iterdir() if "reinforce" in path.name)
    result = json.loads((directory / "result.json").read_text())
    identity = result["identity"]
    config = (directory / "config.yaml").read_text()
    assert "optimizer: lion" in config
    assert "lr_schedule: staircase" in config
    assert "sampler: reread" in config
    assert (identity["algo"], identity["plugin"], identity["reward"]) == ("reinforce", "alignbench-example", "keyword")
    metrics = result["metrics"]
    assert 0 <= metrics["optimization/proxy_reward"]["value"] <= 1, "the proxy is the share of keyword responses"
    assert all(math.isfinite(metric["value"]) for metric in metrics.values())

    said = [json.loads(line) for line in (directory / "stages" / "say" / "responses.jsonl").read_text().splitlines()]
    share = sum(bool(re.search(r"\byes\b", line["response"])) for line in said) / 8
    assert len(said) == 8
    assert result["reports"]["stage/say/share"] == share
    done = command("word-share", str(directory), cwd=tmp_path)
    assert re.fullmatch(rf"{re.escape(str(directory))}: [01]\.\d{{3}}\n", done.stdout), done.stderr
    report = tmp_path / "report.html"
    done = command("compare", str(results), "--format", "html", "--output", str(report), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for heading in ("Time by stage", "Responses that say yes"):
        assert heading in report.read_text()

    lines = notes.read_text().splitlines()
    assert lines[0] == "started reinforce world True"
    assert lines[-1] == f"finished finished {len(metrics)}"
    assert [line.split()[1] for line in lines[1:-1]] == ["pretrain", "sft", "reinforce", "reinforce"]
    assert all(re.fullmatch(r"step \w+ \d+ [1-9]\d*", line) for line in lines[1:-1])


@installed
def test_presets_of_the_package_are_found(tmp_path: Path) -> None:
    done = command("experiment=reinforce_keyword", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("component: reinforce", "component: keyword", "word: 'yes'", "warmup_updates: 5"):
        assert line in done.stdout


@installed
def test_settings_that_a_plugin_tuned_are_used_where_model_and_algorithm_meet() -> None:
    """conf/tuned/tiny-dpop.yaml of the package: for that pair alone, and less than what a user says."""

    def found(*overrides: str) -> tuple[float, int, float]:
        config = load_config(["algo=dpop", "eval=quick", *overrides]).algo.config
        return config.learning_rate, config.updates, config.beta

    assert found() == (3e-4, 130, 0.1)
    assert found("algo.learning_rate=1e-3") == (1e-3, 130, 0.1)
    assert found("model=micro") == (1e-5, 0, 0.1), "they suit another model"
    assert found("experiment=exact", "eval=quick", "data.beta=0.5") == (1e-5, 0, 0.5), (
        "the exact world's price of a nat"
    )


@installed
@pytest.mark.parametrize("component", ["stage=say", "format=stars"])
def test_what_is_held_to_the_checks_of_every_config(component: str) -> None:
    results = list(check(component))
    assert results
    assert [result.line() for result in results if result.status is Status.FAILED] == []


@installed
def test_its_layout_of_rows_is_read_where_it_is_chosen(tmp_path: Path) -> None:
    rows = [
        {"ask": f"Q{i}?", "answers": [{"says": "no", "stars": 1 + i % 2}, {"says": "yes", "stars": 4}]}
        for i in range(40)
    ]
    rows[3]["answers"][0]["stars"] = 6  # type: ignore[index]
    path = tmp_path / "stars.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command("data", str(path), "data.format=stars", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["description"]["forms"] == {"stars": 39}
    assert "6 stars, of at most 5" in found["description"]["set_aside"]["malformed"]
    done = command("data", str(path), "data.format=stars", "data.format_options.most=6", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["description"]["forms"] == {"stars": 40}
    plain = command("data", str(path), cwd=tmp_path)
    assert plain.returncode == 2, "installing a plugin changes how no file is read"


# The algorithm, against arithmetic


class Table:
    """What an optimizer sees of a policy whose logits are a table [R, V]: small enough to enumerate."""

    def __init__(self, length: int = 2, vocabulary: int = 3) -> None:
        self.logits = torch.nn.Parameter(torch.randn(length, vocabulary, generator=Seeds(0).torch("policy")))
        self.reference = self.logits.detach().clone()

    def trainable(self) -> list[torch.nn.Parameter]:
        return [self.logits]

    def logprobs(
        self, sequences: Sequences, *, role: str = POLICY, temperature: float = 1.0, entropy: bool = False
    ) -> TokenScores:
        table = self.logits if role == POLICY else self.reference
        log_p = torch.log_softmax(table / temperature, -1)[: sequences.response_ids.shape[1]].expand(
            len(sequences), -1, -1
        )
        chosen = log_p.gather(-1, sequences.response_ids[..., None]).squeeze(-1) * sequences.response_mask
        return TokenScores(chosen, -(log_p.exp() * log_p).sum(-1).detach() if entropy else None)

    def rollout(self, ids: torch.Tensor, scores: torch.Tensor) -> ScoredRollout:
        mask = torch.ones_like(ids, dtype=torch.bool)
        sequences = Sequences(torch.zeros(len(ids), 1, dtype=torch.long), torch.ones(len(ids), 1).bool(), ids, mask)
        samples = Samples((Prompt("p", ()),) * len(ids), ("",) * len(ids), sequences, mask[:, 0])
        with torch.no_grad():
            return ScoredRollout(Rollout(samples, self.logprobs(sequences).logprobs, 1.0), scores)

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        probabilities = torch.softmax(self.logits.detach(), -1)
        return torch.multinomial(probabilities, n, replacement=True, generator=generator).T.contiguous()


def reinforce(policy: Table, updates: int = 1, **options: object):  # type: ignore[no-untyped-def]
    from alignbench_example import ReinforceConfig
    from alignbench_example.reinforce import Reinforce

    config = dataclasses.replace(ReinforceConfig(), **options)
    return Reinforce(config, policy=policy, updates=updates, seeds=Seeds(0))  # type: ignore[arg-type]


IDS = torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0], [2, 1]])
SCORES = torch.tensor([1.0, -0.5, 0.0, 2.0, 0.3])


@installed
@pytest.mark.parametrize("micro_batch_size", [2, 64])
def test_gradient_is_the_formula(micro_batch_size: int) -> None:
    policy = Table()
    policy.reference += torch.tensor([[0.5, 0.0, -0.2], [0.0, 1.0, 0.0]])
    optimizer = reinforce(policy, kl_coef=0.7, max_grad_norm=0.0, micro_batch_size=micro_batch_size)
    table = policy.logits.detach().double()
    report = optimizer.update(policy.rollout(IDS, SCORES))

    log_pi, log_ref = table.log_softmax(-1), policy.reference.double().log_softmax(-1)
    positions = torch.arange(2)
    kl = torch.stack([(log_pi - log_ref)[positions, row].sum() for row in IDS])
    returns = SCORES.double() - 0.7 * kl
    expected = torch.zeros_like(table)
    for row, advantage in zip(IDS, returns - returns.mean(), strict=True):
        expected -= advantage * (torch.nn.functional.one_hot(row, 3) - log_pi.exp()) / len(IDS)
    torch.testing.assert_close(policy.logits.grad.double(), expected, atol=1e-6, rtol=1e-5)
    assert report.metrics["kl"] == pytest.approx(kl.mean().item(), abs=1e-6)
    assert report.metrics["entropy"] == pytest.approx(-(log_pi.exp() * log_pi).sum(-1).mean().item(), abs=1e-5)
    assert report.optimizer_steps == 1


@installed
def test_finds_the_optimum_of_the_regularised_objective() -> None:
    """pi* = pi_ref exp(r / beta) / Z; with a reward that is a sum over positions the table can represent it."""
    policy, beta, updates = Table(), 1.0, 400
    reward = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.5, 0.0]])
    optimum = torch.softmax(policy.reference + reward / beta, -1)
    optimizer = reinforce(policy, updates, kl_coef=beta, learning_rate=0.05)
    generator = Seeds(0).torch("rollouts")
    before = (torch.softmax(policy.logits, -1) - optimum).abs().sum(-1).max() / 2
    for _ in range(updates):
        ids = policy.sample(128, generator)
        optimizer.update(policy.rollout(ids, reward[torch.arange(2), ids].sum(1)))
    after = (torch.softmax(policy.logits, -1) - optimum).abs().sum(-1).max() / 2
    assert before > 0.2
    assert after < 0.03


@installed
def test_refuses_a_reward_that_is_not_finite_and_keeps_the_weights() -> None:
    policy = Table()
    before = policy.logits.detach().clone()
    with pytest.raises(NonFiniteError, match=r"reward .*1 of 5"):
        reinforce(policy).update(policy.rollout(IDS, torch.tensor([1.0, math.nan, 0.0, 0.0, 0.0])))
    assert torch.equal(policy.logits, before)


@installed
def test_goes_on_from_its_state_as_if_never_stopped() -> None:
    def run(interrupt: bool) -> torch.Tensor:
        policy, scores = Table(), SCORES
        optimizer = reinforce(policy, 4, learning_rate=0.1)
        for update in range(4):
            if interrupt and update == 2:
                state, optimizer = optimizer.state_dict(), reinforce(policy, 4, learning_rate=0.1)
                optimizer.load_state_dict(state)
            optimizer.update(policy.rollout(IDS, scores))
        return policy.logits.detach()

    assert torch.equal(run(interrupt=False), run(interrupt=True))


# The reward


def keyword(word: str):  # type: ignore[no-untyped-def]
    from alignbench_example import KeywordConfig
    from alignbench_example.keyword import KeywordReward

    return KeywordReward(KeywordConfig(word), policy=None, data=None, seeds=Seeds(0))  # type: ignore[arg-type]


@installed
def test_keyword_is_a_whole_word_in_either_case() -> None:
    texts = ("Yes , it is .", "eyes", "no", "oh yes!", "")
    ids = torch.zeros(len(texts), 1, dtype=torch.long)
    sequences = Sequences(ids, ids.bool(), ids, ids.bool())
    samples = Samples((Prompt("p", ()),) * len(texts), texts, sequences, ids[:, 0].bool())
    scores = keyword("yes").score(samples)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [1, 0, 0, 1, 0]
    assert functional.masked_mean(scores, torch.ones(5)) == pytest.approx(0.4)


@installed
def test_keyword_must_not_be_empty() -> None:
    with pytest.raises(UserError, match=r"reward\.word is empty"):
        keyword("  ")
