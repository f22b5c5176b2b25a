"""Monotonic time that counts a suspended machine too."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial


def _boot_clock() -> Callable[[], float]:
    # `time.monotonic` stands still on Linux while the machine is suspended: what memory held would be trusted on.
    clock_id = getattr(time, "CLOCK_BOOTTIME", None)
    if clock_id is None:
        return time.monotonic
    try:
        time.clock_gettime(clock_id)
    except OSError:
        return time.monotonic
    return partial(time.clock_gettime, clock_id)


monotonic = _boot_clock()
"""Seconds since the machine was started, by CLOCK_BOOTTIME where there is one and else by `time.monotonic`."""
