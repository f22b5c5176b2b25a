"""On which event loops a test runs: on all of them, unless it says otherwise."""

from __future__ import annotations

import pytest

ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")
UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")
TRIO = pytest.param(("trio", {}), id="trio")
ALL = (ASYNCIO, UVLOOP, TRIO)

# For what needs Redis, whose driver knows asyncio only: `pytestmark = [pytest.mark.anyio, asyncio_only]`.
asyncio_only = pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
