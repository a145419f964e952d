"""One thread and no network in every test process, set before anything imports torch."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

# Runs of the tests share no stage with those of the user, and leave nothing behind; converted models stay where they are.
_CACHE = tempfile.TemporaryDirectory(prefix="alignbench-tests-")
_OWN = Path(os.environ.get("ALIGNBENCH_CACHE") or Path.home() / ".cache" / "alignbench")
(_OWN / "models").mkdir(parents=True, exist_ok=True)
(Path(_CACHE.name) / "models").symlink_to(_OWN / "models")
os.environ["ALIGNBENCH_CACHE"] = _CACHE.name

torch.set_num_threads(1)
