"""Fixtures that several test modules use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import LoopbackHub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A started, empty model hub on loopback; `hub.environment(home)` is what a client's process needs."""
    with LoopbackHub() as server:
        yield server


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora; tests that need it are skipped where there is none."""
    folder = Path(os.environ.get("RECFOUND_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora")
    if not folder.is_dir():
        pytest.skip(f"no real corpora at {folder}; name their folder in RECFOUND_CORPORA")
    return folder.resolve()
