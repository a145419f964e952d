"""Real data, and small inputs that once failed, which lie beside the repository where there are any."""

from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2] / "shared"


def shared_data(name: str) -> Path:
    """The folder `name` of the shared data; skips the test where it is not there."""
    return _folder("data", name)


def shared_case(kind: str, name: str) -> Path:
    """The folder `name` of the shared cases of a kind (models); skips the test where it is not there."""
    return _folder("cases", kind, name)


def _folder(*parts: str) -> Path:
    folder = _ROOT.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"needs the folder {folder}")
    return folder
