"""Real data that lies beside the repository, where there is any."""

from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """The folder `name` of the shared data; skips the test where it is not there."""
    folder = _ROOT / name
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}")
    return folder
