"""`alignbench rank`: what people are to rank, and what they have ranked."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from alignbench.app.compose import load_config
from alignbench.app.target import of_run
from alignbench.errors import UserError
from alignbench.page.rank import blind, export
from alignbench.page.rank.importing import read_items
from alignbench.page.rank.items import MOST_RESPONSES, Item
from alignbench.page.rank.projects import new_link, project_folder
from alignbench.page.rank.store import FILE, Project, Settings
from alignbench.paths import given_path
from alignbench.results.disk.directory import RESULT
from alignbench.results.disk.runs import DEFAULT_RESULTS, locate
from alignbench.results.shown.render import print_table
from alignbench.seeds import Seeds

DEFAULT_PROJECTS = DEFAULT_RESULTS.parent / "rank"
OF_ITEMS = ("sample", "import")
"""What takes settings of a run."""


def main(argv: Sequence[str]) -> int:
    """Does one thing to one project; returns the exit code."""
    options, rest = _parser().parse_known_args(argv)
    if odd := [text for text in rest if "=" not in text or text.startswith("--") or options.action not in OF_ITEMS]:
        raise UserError(f"alignbench rank {options.action} does not know {odd[0]}; see alignbench rank --help.")
    options.overrides = tuple(rest)
    actions = {"sample": _sample, "import": _import, "export": _export, "links": _links, "ab": _ab, "result": _result}
    actions[options.action](options)
    return 0


def _sample(options: argparse.Namespace) -> None:
    folder = project_folder(options.projects, options.project)
    if (folder / FILE).exists():
        raise UserError(f"{folder} is a project already: choose another name.")
    if not 2 <= options.responses <= MOST_RESPONSES:
        raise UserError(f"--responses {options.responses}: people rank 2 to {MOST_RESPONSES}, one number key each.")
    settings, run = _settings(options, options.run or "the SFT model"), None
    config = load_config(options.overrides)  # of a run it says what its rankings will train
    if options.run:
        run = locate(options.run, options.results_dir)
        if not (run / RESULT).is_file():
            raise UserError(f"{run} is no run's directory: it has no {RESULT}.")
        config = of_run(run, []).config

    from alignbench.page.rank.sampling import Sampled, sample  # torch, once the request is known to be good

    found: list[Sampled] = sample(config, prompts=options.prompts + options.gold, responses=options.responses, run=run)
    telling = [one.prompt.id for one in found if len(set(one.gold)) > 1]
    if options.gold and not telling:
        raise UserError(
            f"--gold: data={config.data.label} does not tell which response is right; import gold questions."
        )
    gold = set(telling[: options.gold])

    def right(values: Sequence[float]) -> tuple[int, ...]:
        order = sorted(set(values), reverse=True)
        return tuple(order.index(value) for value in values)

    items = [
        Item(
            prompt=one.prompt.id,
            messages=one.prompt.messages,
            responses=one.responses,
            finished=one.finished,
            gold=right(one.gold) if one.prompt.id in gold else (),
            cluster=one.prompt.cluster,
        )
        for one in found
    ]
    _add(Project.create(folder, settings), items)


def _import(options: argparse.Namespace) -> None:
    items = read_items(options.file)
    folder = project_folder(options.projects, options.project)
    if (folder / FILE).exists():
        if options.overrides:
            raise UserError(
                f"{folder} is a project already and keeps its settings: import without {options.overrides[0]}."
            )
        project = Project(folder)
    else:
        load_config(options.overrides)
        project = Project.create(folder, _settings(options, options.file.name))
    _add(project, items)


def _ab(options: argparse.Namespace) -> None:
    folder = project_folder(options.projects, options.project)
    runs = [locate(name, options.results_dir).absolute() for name in (options.first, options.second)]
    found = blind.pairs(*runs, prompts=options.prompts, seeds=Seeds(options.order_seed).child("ab"))
    settings = _settings(options, "two checkpoints")
    about = {blind.FIRST: str(runs[0]), blind.SECOND: str(runs[1]), blind.EQUAL: json.dumps(found.equal)}
    _add(Project.create(folder, replace(settings, kind="ab", about=about)), found.items)
    if found.equal:
        print(f"Both gave the same response to {len(found.equal)} more prompts: these count as ties.")


def _result(options: argparse.Namespace) -> None:
    project = _project(options)
    row = blind.write_row(project, options.results_dir)
    print_table([row], Console())
    print(f"\nThe row lies in {row}")


def _add(project: Project, items: Sequence[Item]) -> None:
    project.add(items)
    print(
        f"{len(items)} items in {project.folder}. alignbench page opens the page; people rank at /rank/{project.name}."
    )


def _export(options: argparse.Namespace) -> None:
    count = export.write(_project(options), options.output, hashed=options.hash_names)
    print(f"{options.output}: {count} rankings, for annotator=recorded annotator.path={options.output}")


def _links(options: argparse.Namespace) -> None:
    project = _project(options)
    print("Each opens this project for one person, until another is made for them. They are kept nowhere:")
    for name in options.names:
        print(f"{name}: {options.url.rstrip('/')}{new_link(project, name)}")


def _project(options: argparse.Namespace) -> Project:
    return Project(project_folder(options.projects, options.project))


def _settings(options: argparse.Namespace, where_from: str) -> Settings:
    return Settings(
        people=options.people,
        gold_every=options.gold_every,
        seed=options.order_seed,
        scales=options.scales,
        overrides=options.overrides,
        about={"from": where_from},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench rank",
        description="Ranking by people: projects of prompts with several responses each, ranked in a browser\n"
        "(alignbench page).\n\n"
        "  alignbench rank sample first --prompts 30 --responses 4     of the SFT model of these settings\n"
        "  alignbench rank sample second --run RUN --people 3          of a finished run's policy\n"
        "  alignbench rank import third FILE.jsonl                     responses that you have\n"
        "  alignbench rank ab fourth RUN OTHER                         two runs, blind\n"
        "  alignbench rank result fourth                               their human win rate, as a row\n"
        "  alignbench rank links first Ann Ben --url http://host:8400  for people elsewhere\n"
        "  alignbench rank export first rankings.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="sample | import | ab | export | result | links"
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("project", metavar="PROJECT", help="its name: letters, digits, - and _")
    common.add_argument(
        "--projects", type=given_path, default=DEFAULT_PROJECTS, metavar="DIR", help="default: %(default)s"
    )
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--people", type=int, default=Settings.people, help="who see each item; default: %(default)s")
    made.add_argument(
        "--gold-every", type=int, default=Settings.gold_every, metavar="N",
        help="of N items of a person one is a gold question, while there are any; default: %(default)s",
    )  # fmt: skip
    made.add_argument("--scales", action="store_true", help="ask how helpful, truthful and harmless each response is")
    made.add_argument(
        "--order-seed", type=int, default=Settings.seed, metavar="SEED",
        help="of the order in which each person sees responses; default: %(default)s",
    )  # fmt: skip

    sample = actions.add_parser(
        "sample", parents=[common, made], help="responses of a model to prompts of a data source",
        usage="%(prog)s PROJECT [options] [key=value ...]",
    )  # fmt: skip
    sample.add_argument("--prompts", type=_positive, default=50, help="default: %(default)s")
    sample.add_argument("--responses", type=_positive, default=4, help="to each prompt; default: %(default)s")
    sample.add_argument(
        "--gold", type=_count, default=0, metavar="N", help="as many gold questions, where the data knows the truth"
    )
    sample.add_argument("--run", default="", help="a finished run whose policy responds; default: the SFT model")
    sample.add_argument(
        "--results-dir", type=given_path, default=DEFAULT_RESULTS, metavar="DIR", help="default: %(default)s"
    )

    read = actions.add_parser(
        "import", parents=[common, made], help="items of a file, also into a project that is there"
    )
    read.add_argument("file", type=given_path, metavar="FILE", help="JSONL: prompt or messages, and responses")

    ab = actions.add_parser("ab", parents=[common, made], help="two runs' responses, blind")
    ab.add_argument("first", metavar="RUN", help="whose win rate it is: a run, or the sft folder in one")
    ab.add_argument("second", metavar="OVER", help="what it is compared with")
    ab.add_argument("--prompts", type=_count, default=0, help="how many, drawn; default: all that both answered")
    result = actions.add_parser("result", parents=[common], help="a row with the human win rate of such a project")
    for one in (ab, result):
        one.add_argument(
            "--results-dir", type=given_path, default=DEFAULT_RESULTS, metavar="DIR", help="default: %(default)s"
        )

    out = actions.add_parser("export", parents=[common], help="rankings, one line each")
    out.add_argument("output", type=given_path, metavar="FILE")
    out.add_argument("--hash-names", action="store_true", help="hashes instead of names")

    links = actions.add_parser("links", parents=[common], help="a link for each person, off this machine")
    links.add_argument("names", nargs="+", metavar="NAME")
    links.add_argument("--url", default="http://127.0.0.1:8400", help="where the page is; default: %(default)s")
    return parser


def _count(text: str, least: int = 0) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def _positive(text: str) -> int:
    return _count(text, 1)
