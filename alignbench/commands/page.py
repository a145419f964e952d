"""`alignbench page`: the simulator, ranking by people, and results to look at, in a browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from alignbench.errors import UserError
from alignbench.paths import given_path
from alignbench.results.disk.runs import DEFAULT_RESULTS


def main(argv: Sequence[str]) -> int:
    """Serves the page until Ctrl-C; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        from alignbench.page.server import serve
        from alignbench.page.settings import PageSettings
    except ModuleNotFoundError as error:
        raise UserError(f"The page needs {error.name}: pip install 'alignbench[page]'.") from error
    if options.export:
        from alignbench.page.simulator.export import export
        from alignbench.page.simulator.pool import pool
        from alignbench.page.simulator.starts import chosen

        size = export(pool(chosen(options.results), print), options.export)
        print(f"{options.export} ({size:,} bytes) opens in any browser, without a server.")
        return 0
    serve(PageSettings(options.results, options.host, options.port, options.token))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench page",
        description="Open the page in a browser: an RLHF simulator, a place where people rank responses, and results to look at.",
    )
    parser.add_argument(
        "results", nargs="?", type=given_path, default=DEFAULT_RESULTS, metavar="RESULTS", help="default: %(default)s"
    )
    parser.add_argument("--port", type=int, default=8400, help="default: %(default)s")
    parser.add_argument(
        "--host", default="127.0.0.1", help="any but this machine's own needs --token; default: %(default)s"
    )
    parser.add_argument(
        "--export",
        type=given_path,
        metavar="FILE",
        help="write the simulator as one HTML file that needs no server, and end",
    )
    parser.add_argument("--token", default="", help="a secret that visitors need")
    return parser
