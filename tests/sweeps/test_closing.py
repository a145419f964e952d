"""How a sweep ends, whatever became of its jobs. The jobs of these tests train nothing."""

from __future__ import annotations

import dataclasses
import io
import pickle
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from rich.console import Console

from alignbench import UserError
from alignbench.app import compose, sweeps
from alignbench.app.config import RunConfig
from alignbench.app.sweeps import Report
from alignbench.app.telling import Verbosity
from alignbench.errors import AlignbenchError
from alignbench.hookspecs import RunStep
from alignbench.plugins import registry
from alignbench.results.disk.record import Status
from alignbench.selection import Selected
from tests.sweeps.pretend import pretend

TITLE = "helpfulness"  # the family of the one metric: it stands once in every table


@dataclasses.dataclass
class Sweep:
    folder: Path
    seeds: list[int] = dataclasses.field(default_factory=list)
    raises: dict[int, BaseException] = dataclasses.field(default_factory=dict)
    algorithms: list[Selected] = dataclasses.field(default_factory=list)

    def task(self, config: RunConfig) -> None:
        self.seeds.append(config.seed)
        self.algorithms.append(config.algo)
        if config.seed in self.raises:
            raise self.raises[config.seed]
        pretend(config)

    def run(self, *arguments: str, verbosity: Verbosity = Verbosity.NORMAL) -> None:
        places = (f"results_dir={self.folder / 'runs'}", f"hydra.sweep.dir={self.folder / 'sweep'}")
        compose.main(self.task, ["-m", *places, *arguments], verbosity)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setenv("COLUMNS", "300")
    return Sweep(tmp_path)


def test_one_table_at_the_end(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.run("seed=0,1", "algo.updates=2,3")  # budgets that a sweep varies are what it compares
    out, err = capsys.readouterr()
    assert out.count(TITLE) == 1
    assert "updates=3" in out
    assert "Not in the table" not in out
    assert err.splitlines() == [
        f"run {i + 1} of 4, seed={seed} algo.updates={updates}"
        for i, (seed, updates) in enumerate([(0, 2), (0, 3), (1, 2), (1, 3)])
    ]


@pytest.mark.parametrize(
    ("given", "option", "found"),
    [
        (("algo=cpo,simpo", "algo.alpha=0.5"), "alpha", {"cpo": 0.5, "simpo": 0.5}),
        (("algo=cpo,simpo", "algo.optimizer=muon", "algo.optimizer_options={momentum: 0.9}"), "optimizer_options",
         {"cpo": {"momentum": 0.9}, "simpo": {"momentum": 0.9}}),
        (("experiment=exact,arithmetic", "algo=cpo", "algo.alpha=0"), "alpha", {"cpo": 0.0}),
    ],
    ids=["the default has no such option", "a table", "an experiment"],
)  # fmt: skip
def test_an_option_of_what_a_sweep_chooses_is_set_in_its_jobs(
    given: tuple[str, ...], option: str, found: dict[str, object], sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.run(*given)
    assert {one.label: getattr(one.config, option) for one in sweep.algorithms} == found
    assert len(sweep.algorithms) == 2
    varied = given[0].partition("=")
    assert [line.split(", ")[1] for line in capsys.readouterr().err.splitlines() if line.startswith("run ")] == [
        f"{varied[0]}={value}" for value in varied[2].split(",")
    ]


def test_an_option_that_one_of_them_lacks_is_refused_before_the_first_job(sweep: Sweep) -> None:
    with pytest.raises(UserError, match="alpha"):
        sweep.run("algo=cpo,ppo", "algo.alpha=0.5")
    assert not sweep.algorithms


def test_settings_that_cannot_be_compared_have_a_table_each(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.run("eval.samples=2,3")
    out = capsys.readouterr().out
    assert out.count(TITLE) == 2
    assert (
        "2 tables, for numbers of different settings cannot be compared:\n  other evaluation settings, eval.samples"
        in out
    )


def test_a_sweep_tells_how_long_the_rest_will_take_by_the_runs_that_it_trained() -> None:
    sweep = sweeps.Sweep(jobs=12, varied=("algo", "seed"))
    begins = Report(2, ("data=world", "algo=ppo", "seed=1"))
    before = [Report(i, ("algo=ppo", f"seed={i}"), Status.FINISHED) for i in range(2)]
    assert sweep.heading(begins, [*before, begins]) == "run 3 of 12, algo=ppo seed=1"
    before = [dataclasses.replace(report, seconds=seconds) for report, seconds in zip(before, (30, 42), strict=True)]
    assert sweep.heading(begins, [*before, begins]) == "run 3 of 12, algo=ppo seed=1, about 6 minutes left"
    beside = [dataclasses.replace(begins, job=job) for job in (3, 4, 5)]
    assert sweep.heading(begins, [*before, begins, *beside]).endswith("about 2 minutes left"), (
        "four of them share the work"
    )
    assert dataclasses.replace(sweep, jobs=None).heading(begins, [*before, begins]) == "run 3, algo=ppo seed=1"


def test_only_a_run_that_was_trained_tells_of_the_time(tmp_path: Path) -> None:
    """A finished run that a sweep picks up takes none."""
    for job, steps in enumerate((0, 1)):
        with sweeps.reporting(tmp_path, job, ["seed=0"], own_process=True):
            for update in range(steps):
                registry().tell(RunStep(str(tmp_path), "ppo", update, {}))
    assert [report.seconds is None for report in sweeps.read_reports(tmp_path)] == [True, False]


def test_a_quiet_sweep_prints_its_table_alone(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.run("seed=0,1", verbosity=Verbosity.QUIET)
    out, err = capsys.readouterr()
    assert (out.count(TITLE), err) == (1, "")


def test_a_run_that_fails_is_in_the_table_and_stops_no_other(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AlignbenchError, match=r"^1 of 3 runs of the sweep failed\.$") as caught:
        sweep.run("seed=0,13,1")
    assert caught.value.exit_code == 1
    assert sweep.seeds == [0, 13, 1]
    out, err = capsys.readouterr()
    assert "s13-" in next(line for line in out.splitlines() if "failed, seed 13 fails." in line)
    assert "alignbench: error: seed 13 fails." in err.splitlines()


def test_a_job_that_never_became_a_run_is_named_by_what_sets_it_apart(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AlignbenchError, match="1 of 2 runs"):
        sweep.run("algo.kl_coef=-1,0.1", "eval=quick")
    assert "Not in the table: job 0 (algo.kl_coef=-1): failed, algo.kl_coef" in capsys.readouterr().out


def test_a_fault_in_the_code_stops_no_other(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.raises[1] = KeyError("lost\nkey")
    with pytest.raises(AlignbenchError, match="1 of 3 runs"):
        sweep.run("seed=0,1,2")
    assert sweep.seeds == [0, 1, 2]
    out, err = capsys.readouterr()
    assert "job 1 (seed=1): failed, KeyError: 'lost\\nkey'" in out
    assert "Traceback" in err, "whoever mends it wants to see where it is"


def test_ctrl_c_ends_the_sweep_with_its_table(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.raises[1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sweep.run("seed=0,1,2")
    assert sweep.seeds == [0, 1]
    out = capsys.readouterr().out
    assert out.count(TITLE) == 1
    assert "job 1 (seed=1): interrupted" in out


def test_the_jobs_of_another_sweep_in_the_same_folder_are_not_shown(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.run("seed=0,1,2")
    capsys.readouterr()
    sweep.run("seed=0,1", "algo=dpo")
    out = capsys.readouterr().out
    assert "dpo" in out
    assert "ppo" not in out


def test_a_killed_worker_is_told_from_the_report_that_its_job_began_with() -> None:
    buffer = io.StringIO()
    jobs = [Report(0, ("seed=0", "algo=dpo")), Report(1, ("seed=1", "algo=dpo"), Status.FINISHED, "/elsewhere/run")]
    assert sweeps.close(jobs, Console(file=buffer, width=200)) == 1
    assert "job 0 (seed=0): running (or killed)\n" in buffer.getvalue()
    assert "job 1 (seed=1): finished, /elsewhere/run is not on this machine\n" in buffer.getvalue()


def test_what_a_job_says_cannot_paint_the_terminal() -> None:
    buffer = io.StringIO()
    sweeps.close([Report(0, ("a=[red]",), Status.FAILED, None, "\x1b[31m[bold]")], Console(file=buffer, width=200))
    assert "failed, ?[31m[bold]\n" in buffer.getvalue()


def test_a_report_survives_its_file() -> None:
    report = Report(3, ("seed=1",), Status.FAILED, "runs/x", "broken \ud800", "tiny-ppo")
    assert Report.from_json(report.to_json()) == report


def test_a_worker_reports_where_the_command_line_was_and_survives_a_schedulers_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = pickle.loads(pickle.dumps(compose.Job(pretend, sweeps.Sweep(jobs=3))))
    assert (job.home, job.sweep.jobs) == (tmp_path, 3)
    with sweeps.reporting(tmp_path / "jobs", 0, ["seed=0"], own_process=False):
        raise KeyboardInterrupt
    assert Report.from_json((tmp_path / "jobs" / "0.json").read_text()).status is Status.INTERRUPTED


def test_a_single_run_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose.main(pretend, [f"results_dir={tmp_path / 'runs'}"])
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"^seed 13 fails\.$"):
        compose.main(pretend, ["seed=13", f"results_dir={tmp_path / 'runs'}"])
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.parametrize(
    ("group", "name", "extra"),
    [
        ("hydra/launcher", "joblib", "joblib"),
        ("hydra/launcher", "submitit_slurm", "slurm"),
        ("hydra/launcher", "ray", "ray"),
        ("hydra/sweeper", "optuna", "optuna"),
    ],
)
def test_a_launcher_that_is_not_installed_is_one_line(group: str, name: str, extra: str) -> None:
    """In Hydra's own words, which a newer Hydra may change: see the test below for those of the one installed."""
    text = f"In '{group}/preset': Could not load '{group}/{name}'.\n\nConfig search path:\n\tprovider=hydra"
    assert str(compose.explain(ConfigCompositionException(text))) == (
        f"{group}={name} is not installed: pip install 'alignbench[{extra}]'."
    )


@pytest.mark.parametrize("choice", ["hydra/launcher=slurm", "hydra/launcher=ray_cluster", "hydra/sweeper=tune_ppo"])
def test_whichever_extra_is_missing_here(sweep: Sweep, choice: str) -> None:
    from tests.sweeps.test_launchers import NEEDS, installed

    if installed(NEEDS[choice]):
        pytest.skip(f"{NEEDS[choice]} is installed")
    with pytest.raises(UserError, match=r"is not installed: pip install 'alignbench\[\w+\]'\.$"):
        sweep.run("seed=0,1", choice)
