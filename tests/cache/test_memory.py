"""Whether memory keeps its bounds, evicts in the right order, and stands being used by threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmiddleware.cache.base import Entry, Key
from ctxmiddleware.cache.memory import MemoryTier


def _entry(value: str = "v", *, size: int = 10, expires_at: float = 100.0, stale_until: float = 100.0) -> Entry[str]:
    return Entry(value, "db", 0.0, expires_at, 100.0, stale_until, size=size)


def _filled(count: int, *, max_entries: int = 4, max_bytes: int = 1000) -> MemoryTier[str]:
    memory: MemoryTier[str] = MemoryTier(max_entries, max_bytes)
    for number in range(count):
        memory.put(("", str(number)), _entry(str(number)), 0.0)
    return memory


def _names(memory: MemoryTier[str], among: int = 20) -> list[str]:
    return [str(number) for number in range(among) if ("", str(number)) in memory._entries]


def _check(memory: MemoryTier[str]) -> None:
    held = memory._entries
    assert memory.bytes == sum(each.size for each in held.values()) <= memory.max_bytes
    assert len(memory) == len(held) <= memory.max_entries
    partitions = [partition for partition, _ in held]
    assert dict(memory._partitions) == {each: partitions.count(each) for each in partitions}


def test_keeps_what_it_was_given() -> None:
    """What was put is found under its key and under no other."""
    memory = _filled(1)
    found = memory.get(("", "0"))
    assert found is not None
    assert found.value == "0"
    assert memory.get(("other", "0")) is None
    assert repr(memory) == "<MemoryTier: 1 of 4 entries, 10 of 1000 bytes>"


def test_the_oldest_unread_entry_leaves_first() -> None:
    """Without reads entries leave in the order they came."""
    assert _names(_filled(6)) == ["2", "3", "4", "5"]
    assert _filled(6).evictions == 2


def test_a_read_entry_gets_a_second_chance_and_a_newcomer_a_place() -> None:
    """What was read stays while something unread can leave; a newcomer is let in even where all the rest was read."""
    memory = _filled(4)
    memory.get(("", "0"))
    memory.put(("", "4"), _entry(), 0.0)
    assert _names(memory) == ["0", "2", "3", "4"]
    for name in _names(memory):
        memory.get(("", name))
    memory.put(("", "5"), _entry(), 0.0)
    assert "5" in _names(memory)
    assert len(memory) == 4


def test_an_entry_past_every_use_leaves_even_where_it_was_read() -> None:
    """A second chance is for what may still be served."""
    memory: MemoryTier[str] = MemoryTier(2, 1000)
    memory.put(("", "0"), _entry(expires_at=5.0, stale_until=8.0), 0.0)
    memory.put(("", "1"), _entry(), 0.0)
    memory.get(("", "0"))
    memory.put(("", "2"), _entry(), 9.0)
    assert _names(memory) == ["1", "2"]


def test_an_entry_that_may_still_stand_in_keeps_its_second_chance() -> None:
    """Past its time but within its grace an entry is of use, and one that is fresh long after its grace as well."""
    memory: MemoryTier[str] = MemoryTier(2, 1000)
    memory.put(("", "0"), _entry(expires_at=5.0, stale_until=20.0), 0.0)
    memory.put(("", "1"), _entry(), 0.0)
    memory.get(("", "0"))
    memory.put(("", "2"), _entry(), 9.0)
    assert _names(memory) == ["0", "2"]


def test_bytes_are_a_bound_of_their_own() -> None:
    """As many entries leave as a large one needs room."""
    memory = _filled(4, max_entries=100, max_bytes=40)
    memory.put(("", "big"), _entry(size=25), 0.0)
    _check(memory)
    assert _names(memory) == ["3"]
    assert memory.bytes == 35


def test_an_entry_larger_than_the_bound_is_not_kept_and_harms_nobody() -> None:
    """It takes its own former value with it, which is no longer the truth, and nobody else's."""
    memory = _filled(2)
    memory.put(("", "0"), _entry(size=1001), 0.0)
    assert _names(memory) == ["1"]
    memory.put(("", "0"), _entry(size=1000), 0.0)
    assert _names(memory) == ["0"]
    _check(memory)


def test_replacing_counts_once() -> None:
    """A key that is put again takes the room of its new entry only."""
    memory = _filled(1)
    memory.put(("", "0"), _entry(size=30), 0.0)
    assert (len(memory), memory.bytes) == (1, 30)


def test_a_name_is_dropped_in_every_partition() -> None:
    """Forgetting a name reaches all partitions, and no other name."""
    memory: MemoryTier[str] = MemoryTier(10, 1000)
    keys: list[Key] = [("a", "ada"), ("b", "ada"), ("b", "bob")]
    for key in keys:
        memory.put(key, _entry(), 0.0)
    assert memory.drop("ada") == 2
    assert memory.drop("ada") == 0
    assert [key for key in keys if memory.get(key)] == [("b", "bob")]
    _check(memory)
    assert memory.clear() == 1
    assert (len(memory), memory.bytes) == (0, 0)
    _check(memory)


_KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from("0123456789"))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _KEYS, st.integers(0, 60)),
        st.tuples(st.just("get"), _KEYS, st.just(0)),
        st.tuples(st.just("drop"), _KEYS, st.just(0)),
        st.tuples(st.just("clear"), _KEYS, st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(_STEPS)
def test_holds_its_bounds_and_the_last_value_whatever_happens(steps: list[tuple[str, Key, int]]) -> None:
    """After any sequence of steps the sums are right, no bound is passed, and what is held is what was put last."""
    memory: MemoryTier[str] = MemoryTier(5, 100)
    last: dict[Key, Entry[str]] = {}
    for what, key, size in steps:
        if what == "put":
            last[key] = _entry(size=size)
            memory.put(key, last[key], 0.0)
            assert memory.get(key) is last[key]
        elif what == "get":
            assert memory.get(key) in (None, last.get(key))
        elif what == "drop":
            memory.drop(key[1])
            last = {each: kept for each, kept in last.items() if each[1] != key[1]}
        else:
            memory.clear()
            last.clear()
        _check(memory)
        assert all(held is last.get(each) for each, held in memory._entries.items())


def test_eight_threads_do_not_break_the_sums() -> None:
    """Inserts, evictions, drops and reads of eight threads leave exact sums and raise nothing."""
    memory: MemoryTier[str] = MemoryTier(50, 2000)
    failures: list[Exception] = []

    def work(seed: int) -> None:
        for step in range(2000):
            number = (step * 7919 + seed * 104729) % 211
            key = (str(number % 3), str(number))
            memory.put(key, _entry(size=number % 97), float(step))
            memory.get(key)
            if number == 0:
                memory.clear()
            elif number % 5 == 0:
                memory.drop(str(number))

    _in_threads(work, failures)
    assert not failures
    _check(memory)
    assert len(memory) > 0


def _in_threads(work: Callable[[int], None], failures: list[Exception]) -> None:
    def guarded(seed: int) -> None:
        try:
            work(seed)
        except Exception as error:  # noqa: BLE001 - it fails the test, which a thread cannot
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=guarded, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("count", [1, 3])
def test_the_smallest_bounds_work(count: int) -> None:
    """One entry and one byte are bounds like others."""
    memory: MemoryTier[str] = MemoryTier(1, 1)
    for number in range(count):
        memory.put(("", str(number)), _entry(size=1), 0.0)
    assert _names(memory) == [str(count - 1)]
    _check(memory)
