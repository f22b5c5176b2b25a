"""Which clock counts the age of what is kept."""

from __future__ import annotations

import time

import pytest

from ctxmiddleware.clock import _boot_clock


def test_a_suspended_machine_is_counted_where_there_is_such_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """`time.monotonic` would stand still."""
    read: list[int] = []

    def reading(clock_id: int) -> float:
        read.append(clock_id)
        return 12.5

    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", reading)
    clock = _boot_clock()
    read.clear()
    assert (clock(), read) == (12.5, [7])


def test_a_system_without_such_a_clock_has_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS and Windows."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert _boot_clock() is time.monotonic


def test_a_kernel_that_refuses_such_a_clock_has_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sandboxes do; the import of the package must not fail."""

    def refusing(clock_id: int) -> float:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", refusing)
    assert _boot_clock() is time.monotonic
