"""An instance has one name, in whichever report it stands."""

from __future__ import annotations

import os
import socket

import pytest

from ctxmiddleware import InvalidationFailed
from ctxmiddleware.reports import InvalidationReport
from examples.servers.ports import free_port

from .backends import asyncio_only
from .cache.rig import PATIENT
from .people import ADA, plugin_of

pytestmark = pytest.mark.anyio


@asyncio_only
async def test_a_failed_invalidation_names_the_instance_as_every_report_does() -> None:
    """A process id alone is one of many hosts'."""
    async with plugin_of(redis=f"redis://127.0.0.1:{free_port()}", redis_options=PATIENT) as plugin:
        with pytest.raises(InvalidationFailed) as caught:
            await plugin.invalidate(ADA)
        stats = plugin.stats().redis
        assert stats is not None
        report = caught.value.report
        assert isinstance(report, InvalidationReport)
        assert [each.instance for each in report.confirmed] == [stats.instance]


async def test_without_redis_the_instance_has_a_name_of_the_same_form() -> None:
    """It stays the same for the life of the plugin, and two plugins have two."""
    async with plugin_of() as plugin, plugin_of() as other:
        [first], [second], [third] = [
            [each.instance for each in (await one.invalidate(ADA)).confirmed] for one in (plugin, plugin, other)
        ]
    assert first == second != third
    assert first.startswith(f"{socket.gethostname()[:64]}:{os.getpid()}:")
