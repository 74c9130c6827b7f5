"""Fixtures that several test modules use."""

from collections.abc import Iterator

import pytest
from hub import LoopbackHub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A started, empty model hub on loopback; `hub.environment(home)` is what a client's process needs."""
    with LoopbackHub() as server:
        yield server
