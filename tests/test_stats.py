"""Whether counters are exact under threads and rates are what they say."""

from __future__ import annotations

import sys
import threading

import pytest

from ctxmiddleware.stats import Counters, rate


def test_counts_are_exact_with_eight_threads() -> None:
    """No increment of eight threads is lost, and reading meanwhile raises nothing."""
    counters = Counters()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(label: int) -> None:
        for step in range(2000):
            counters.add("event", str(label % 2))
            counters.add("other", str(step))
            if step % 100 == 0:
                counters.by_label("other")

    try:
        threads = [threading.Thread(target=work, args=(label,)) for label in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert counters.by_label("event") == {"0": 8000, "1": 8000}
    assert len(counters.by_label("other")) == 2000


def test_labels_are_apart_and_reading_counts_nothing() -> None:
    """An event that never was reads as nought and does not appear."""
    counters = Counters()
    counters.add("hit", "memory")
    counters.add("hit", "redis", 4)
    assert counters.get("hit") == counters.get("miss", "memory") == 0
    assert counters.by_label("hit") == {"memory": 1, "redis": 4}
    assert counters.by_label("miss") == {}


@pytest.mark.parametrize(("hits", "misses", "expected"), [(0, 0, None), (3, 1, 0.75), (0, 2, 0.0), (2, 0, 1.0)])
def test_a_rate_is_a_share_or_nothing_yet(hits: int, misses: int, expected: float | None) -> None:
    """Before the first look-up there is no rate; after it, hits among all."""
    assert rate(hits, misses) == expected
