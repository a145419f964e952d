"""What may stand in one table. Rows may differ in what people vary on purpose, and labels say so: the algorithm and its options, the
model, the annotator. They may not differ in what their numbers are measured with (docs/results.md gives the reasons)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alignbench.errors import UserError, unknown_name
from alignbench.results.compared.table import GAP, PROXY, Row, Table
from alignbench.results.disk.environment import counts
from alignbench.results.disk.record import DEFINITIONS_SINCE, MEASURED_REWARD
from alignbench.results.disk.runs import StoredRun

BUDGET = ("algo.updates", "algo.passes", "algo.batch_size")
IGNORED = ("micro_batch_size", "families")  # memory only; a metric that only some rows have shows as a dash


@dataclass(frozen=True)
class _Rule:
    """Rows with the same `peers`, None aside, agree on all of `settings` (a name, or the first part of one)."""

    what: str
    settings: tuple[str, ...]
    peers: Callable[[Row], str | None]


def _measured(row: Row) -> bool:
    """Whether the row is that of a reward source: which one it is, and what it learnt from, is what such rows are compared in."""
    return row.identity.algo == MEASURED_REWARD


RULES = (
    _Rule("data", ("data",), lambda row: "all"),
    _Rule("version", ("alignbench",), lambda row: "all"),
    _Rule("evaluation settings", ("eval",), lambda row: "all"),
    _Rule("reward model", ("reward",), lambda row: None if _measured(row) else row.identity.reward and "scored"),
    _Rule("choice of pairs", ("measure",), lambda row: "measured" if _measured(row) else None),
    _Rule("training budget of the SFT model", ("pretrain", "sft"), lambda row: row.identity.model),
    _Rule(
        "number of rankings", ("rankings",), lambda row: None if _measured(row) else row.identity.annotator and "ranked"
    ),
    _Rule("training budget", BUDGET, lambda row: None if row.baseline else row.identity.algo),
)


def clashes(table: Table, budgets: bool = False) -> list[str]:
    """What makes the rows' numbers incomparable, in a phrase each. `budgets`: training budgets are what is compared."""
    rules = [rule for rule in RULES if not (budgets and rule.settings == BUDGET)]
    facts = [(row, _facts(row)) for row in table.rows]
    return [*_older(table), *(clash for rule in rules for clash in _clashes(rule, facts))]


def _older(table: Table) -> list[str]:
    """Of records whose intervals, budgets or KL are defined otherwise, unless all are."""
    runs = [run for row in table.rows for run in row.runs]
    old = [run for run in runs if run.record.schema_version < DEFINITIONS_SINCE]
    if len(old) in (0, len(runs)):
        return []
    return [
        f"other definition of intervals, of budgets and of the KL away from temperature 1, {len(old)} of {len(runs)} records are of a schema version before {DEFINITIONS_SINCE}, "
        f"such as {old[0].path.name}: run them again"
    ]


def require_comparable(table: Table, budgets: bool = False, *, whole: bool = False) -> None:
    """Refuses rows whose numbers do not belong in one table: a line of what differs, of `whole` a line each, and one of what to do."""
    if found := clashes(table, budgets):
        more = f" (and {len(found) - 1} more: --verbose)" if len(found) > 1 else ""
        what = "".join(f"\n  {clash}" for clash in found) if whole else f" {found[0]}{more}."
        raise UserError(
            f"These runs do not belong in one table:{what}\n"
            "Name the runs to compare, choose with --only KEY=VALUE, or see them all the same with --force."
        )


def comparable(table: Table) -> list[list[Row]]:
    """The rows in as few groups as their numbers can be compared in; an SFT model is in each that it belongs to. Training budgets may
    differ: of runs that were made together, they are what is compared."""

    def fits(row: Row, group: Sequence[Row]) -> bool:
        return not clashes(Table((*group, row), table.metrics), budgets=True)

    groups: list[list[Row]] = []
    for row in [row for row in table.rows if not row.baseline]:
        if (home := next((group for group in groups if fits(row, group)), None)) is None:
            groups.append(home := [])
        home.append(row)
    for row in [row for row in table.rows if row.baseline]:
        homes = [group for group in groups if fits(row, group)]
        for home in homes:
            home.append(row)
        if not homes:
            groups.append([row])
    return groups


def _clashes(rule: _Rule, facts: Sequence[tuple[Row, dict[str, object]]]) -> Iterator[str]:
    """One phrase for each setting on which rows do not agree. What a row does not know it does not contradict."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    names = [name for name in dict.fromkeys(name for _, known in facts for name in known) if _covers(rule, name)]
    for row, known in facts:
        if peers := rule.peers(row):
            for name in names:
                if name in known:
                    found[peers, name].setdefault(str(known[name]), " ".join(row.label))
    for (_, name), values in found.items():
        if len(values) > 1:
            named = [f"{value[:40]} in {label}" for value, label in list(values.items())[:3]]
            yield f"other {rule.what}, {name} is {', '.join(named)}" + (
                f" and {len(values) - 3} more" if len(values) > 3 else ""
            )


def _covers(rule: _Rule, name: str) -> bool:
    return (
        any(name == s or name.startswith(f"{s}.") for s in rule.settings)
        and counts(name)
        and not name.endswith(IGNORED)
    )


def _facts(row: Row) -> dict[str, object]:
    identity = row.identity
    version = {"alignbench": identity.packages["alignbench"]} if "alignbench" in identity.packages else {}
    return {**row.runs[0].settings, "data": identity.data, "reward": identity.reward, **version}


def reward_model(row: Row) -> tuple[object, ...]:
    """What a row's proxy reward is a score of: rows that differ in it cannot be compared by that score."""
    settings = row.runs[0].settings
    parts = ("reward.", "annotator.", "rankings.")
    relevant = sorted((k, str(v)) for k, v in settings.items() if k.startswith(parts) and not k.endswith(IGNORED))
    return (row.identity.reward, row.identity.annotator, *relevant)


def measured_alike(metric: str, one: Row, other: Row) -> bool:
    return metric not in (PROXY, GAP) or reward_model(one) == reward_model(other)


def caveats(table: Table) -> list[str]:
    """What a table shows side by side although it must not be compared across all of its rows."""
    scored = {reward_model(row) for row in table.rows if PROXY in row.cells}
    if len(scored) < 2:
        return []
    return [
        f"{len(scored)} different reward models: {PROXY} and {GAP} are to be compared only among rows that one of them scored."
    ]


def chosen(runs: list[StoredRun], only: list[str]) -> list[StoredRun]:
    """The runs with every KEY=VALUE of `only`: a component, as in data=world, or a setting, as in algo.kl_coef=0.1. Raises UserError for
    a value that none of the runs has: of several, a mistyped one would be missing without a word."""
    for condition in only if runs else ():
        _check_known(runs, *_condition(condition))
    return [run for run in runs if all(meets(run, condition) for condition in only)]


def meets(run: StoredRun, condition: str) -> bool:
    """Whether the run has this KEY=VALUE, or one of several: KEY=VALUE,VALUE."""
    key, value = _condition(condition)
    found = _value(run, key)
    return any(_same(found, one) for one in (value, *value.split(",")))


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--only {text}: write KEY=VALUE, as in --only data=world.")
    return key, value


def _check_known(runs: Sequence[StoredRun], key: str, value: str) -> None:
    if not any(hasattr(run.record.identity, key) or key in run.settings for run in runs):
        raise UserError(
            f"--only {key}={value}: none of the runs has {key}; their config.yaml has the names of settings."
        )
    known = {_value(run, key) for run in runs}
    if any(_same(found, value) for found in known):
        return
    for one in value.split(","):
        if not any(_same(found, one) for found in known):
            raise unknown_name(key, one, known, where=f"--only {key}={value}")


def _value(run: StoredRun, key: str) -> str:
    return str(getattr(run.record.identity, key, run.settings.get(key)))


def _same(found: str, value: str) -> bool:
    """As text, or as a number: 0 is 0.0, and 3e-4 is 0.0003."""
    try:
        return found == value or float(found) == float(value)
    except ValueError:
        return False
