"""Fixtures of the tests of `plugin.changing`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.servers import Valkey


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may stop and kill."""
    with Valkey.start() as server:
        yield server
