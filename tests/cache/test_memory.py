"""Whether memory keeps its bounds, evicts in the right order, and stands being used by threads."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmiddleware.cache.base import Entry, Key
from ctxmiddleware.cache.memory import MemoryTier
from ctxmiddleware.cache.names import digest_of

V = TypeVar("V")


def _entry(
    value: str | None = "v", *, size: int = 10, expires_at: float = 100.0, stale_until: float = 100.0
) -> Entry[str]:
    return Entry(value, "db", 0.0, expires_at, 100.0, max(0.0, stale_until - expires_at), size=size)


def _filled(count: int, *, max_entries: int = 4, max_bytes: int = 1000) -> MemoryTier[str]:
    memory: MemoryTier[str] = MemoryTier(max_entries, max_bytes)
    for number in range(count):
        memory.put(("", str(number)), _entry(str(number)), 0.0)
    return memory


def _names(memory: MemoryTier[str], among: int = 20) -> list[str]:
    return [str(number) for number in range(among) if ("", str(number)) in memory._entries]


def _check(memory: MemoryTier[V]) -> None:
    held = memory._entries
    known = {key for key, each in held.items() if each.value is not None}
    assert {*memory._known._newcomers, *memory._known._regulars} == known
    assert set(memory._unknown) == set(held) - known
    assert sum(len(bucket) for bucket in memory._expiry._buckets.values()) == len(held)
    assert len(memory._known._ghosts) <= memory.max_entries
    assert memory.bytes - memory._sharing.bytes == sum(each.size for each in held.values())
    assert memory._unknown_bytes == sum(each.size for each in held.values() if each.value is None)
    assert memory.bytes <= memory.max_bytes
    assert len(memory) == len(held)
    assert len(known) <= memory.max_entries
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
    memory.put(("", "2"), _entry(), 10.0)
    assert _names(memory) == ["1", "2"]
    assert memory.evictions == 0


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
        st.tuples(st.just("put"), _KEYS, st.integers(1, 60)),
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
            memory.put(key, _entry(size=number % 97 + 1, expires_at=float(step + number)), float(step))
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


def test_a_flood_of_unknown_names_drives_out_nobody_who_is_known() -> None:
    """Unknown names have a number of their own, and of the bytes they are the first to give theirs back."""
    memory: MemoryTier[str] = MemoryTier(4, 100, max_unknown=3)
    for number in range(4):
        memory.put(("", str(number)), _entry(), 0.0)
    for number in range(100):
        memory.put(("", f"nobody{number}"), _entry(None, size=5), 0.0)
    assert _names(memory) == ["0", "1", "2", "3"]
    assert [key[1] for key in memory._unknown] == ["nobody97", "nobody98", "nobody99"]
    memory.put(("", "3"), _entry(size=60), 0.0)
    assert _names(memory) == ["0", "1", "2", "3"]
    assert len(memory._unknown) == 2
    _check(memory)


def test_where_bytes_are_the_limit_unknown_names_take_a_sixteenth_of_them() -> None:
    """However many come, they drive out one another; one that is larger than all they may take is not kept."""
    memory: MemoryTier[str] = MemoryTier(1000, 1600, max_unknown=100)
    for number in range(160):
        memory.put(("", str(number)), _entry(), 0.0)
    for number in range(50):
        memory.put(("", f"nobody{number}"), _entry(None, size=40), 0.0)
        assert memory.get(("", f"nobody{number}")) is not None
        _check(memory)
    memory.put(("", "large"), _entry(None, size=101), 0.0)
    assert (len(memory._known), list(memory._unknown)) == (152, [("", "nobody48"), ("", "nobody49")])
    _check(memory)


def test_while_there_is_room_an_unknown_name_may_be_of_any_size() -> None:
    """What unknown names may take from the known is no bound on what nobody needs."""
    memory = _filled(1)
    memory.put(("", "nobody"), _entry(None, size=990), 0.0)
    assert len(memory) == 2
    memory.put(("", "1"), _entry(), 0.0)
    assert _names(memory) == ["0", "1"]
    _check(memory)


def test_who_becomes_known_or_unknown_changes_sides() -> None:
    """The bound that counts is that of what is known of the name now."""
    memory: MemoryTier[str] = MemoryTier(2, 1000, max_unknown=2)
    for value in ("v", None, "w", None):
        memory.put(("", "0"), _entry(value), 0.0)
        _check(memory)
        found = memory.get(("", "0"))
        assert found is not None
        assert found.value == value
    assert len(memory) == 1


def test_changing_sides_passes_no_bound() -> None:
    """Four who are known and four who become known are four."""
    memory: MemoryTier[str] = MemoryTier(4, 1000, max_unknown=4)
    for number in range(8):
        memory.put(("", str(number)), _entry("v" if number < 4 else None), 0.0)
    for number in range(4, 8):
        memory.put(("", str(number)), _entry(), 0.0)
        _check(memory)
    for number in range(8):
        memory.put(("", str(number)), _entry(None), 0.0)
        assert len(memory._unknown) <= 4
        _check(memory)


def test_what_is_dead_leaves_little_by_little_and_holds_no_room() -> None:
    """Without any eviction a thousand dead entries are gone after as many puts as bury them, whoever is asked for."""
    memory: MemoryTier[str] = MemoryTier(10_000, 10**9)
    for number in range(1000):
        memory.put(("", f"old{number}"), _entry(expires_at=50.0, stale_until=50.0), 0.0)
        memory.get(("", f"old{number}"))
    for number in range(250):
        memory.put(("", str(number)), _entry(expires_at=900.0), 100.0)
    assert len(memory) == 250
    assert memory.evictions == 0
    _check(memory)


def test_the_dead_leave_before_the_living() -> None:
    """While something is past every use, nothing else is evicted."""
    memory: MemoryTier[str] = MemoryTier(100, 10**9)
    for number in range(50):
        memory.put(("", f"old{number}"), _entry(expires_at=50.0, stale_until=50.0), 0.0)
    for number in range(50):
        memory.put(("", str(number)), _entry(expires_at=900.0), 0.0)
    for number in range(50, 100):
        memory.put(("", str(number)), _entry(expires_at=900.0), 100.0)
    assert _names(memory, 100) == [str(number) for number in range(100)]
    assert memory.evictions == 0


def test_an_entry_put_again_with_other_times_is_buried_by_the_last_of_them() -> None:
    """What was renewed is not taken for dead, and leaves no trace where it would have died."""
    memory: MemoryTier[str] = MemoryTier(10, 1000)
    for end in range(5, 500, 5):
        memory.put(("", "0"), _entry(expires_at=float(end), stale_until=float(end)), float(end - 5))
        _check(memory)
    memory.put(("", "1"), _entry(expires_at=9000.0), 480.0)
    assert _names(memory) == ["0", "1"]
    memory.put(("", "2"), _entry(expires_at=9000.0), 500.0)
    assert _names(memory) == ["1", "2"]


class Region(msgspec.Struct, frozen=True):
    id: int
    name: str


class Person(msgspec.Struct, frozen=True):
    name: str
    regions: tuple[Region, ...]
    home: Region


def _person(number: int, regions: int = 2) -> Entry[Person]:
    rows = tuple(Region(each, f"region number {each}") for each in range(regions))
    return Entry(Person(f"person {number}", rows, rows[0]), "db", 0.0, 100.0, 100.0, 0.0)


def test_rows_that_many_have_in_common_are_kept_and_counted_once() -> None:
    """A thousand people in two regions hold two rows, and weigh little more than without them."""
    memory: MemoryTier[Person] = MemoryTier(10_000, 10**9, share=(Region,))
    apart: MemoryTier[Person] = MemoryTier(10_000, 10**9)
    for number in range(1000):
        memory.put(("", str(number)), _person(number), 0.0)
        apart.put(("", str(number)), _person(number), 0.0)
    people = [entry.value for entry in memory._entries.values() if entry.value is not None]
    assert len({id(row) for person in people for row in (*person.regions, person.home)}) == 2
    assert [person.name for person in people] == [f"person {number}" for number in range(1000)]
    assert memory.bytes < 0.75 * apart.bytes
    assert len(memory._sharing) == 2


def test_one_whose_rows_pass_the_bound_is_not_kept_and_harms_nobody() -> None:
    """His rows count as his where nobody else has them; he takes his own former value with him, and nobody else's."""
    memory: MemoryTier[Person] = MemoryTier(1000, 100_000, share=(Region,))
    for number in range(20):
        memory.put(("", str(number)), _person(number), 0.0)
    before = memory.bytes
    memory.put(("", "19"), _person(19, regions=1000), 0.0)
    assert (len(memory), len(memory._sharing), memory.evictions) == (19, 2, 0)
    assert memory.bytes < before
    _check(memory)


def test_who_leaves_makes_no_room_by_rows_that_others_hold_too() -> None:
    """The bound holds while ever larger people come who share all the rows of those that leave for them."""
    memory: MemoryTier[Person] = MemoryTier(1000, 30_000, share=(Region,))
    for number in range(40):
        memory.put(("", str(number)), _person(number, regions=2 * number + 1), 0.0)
        _check(memory)
    assert memory.get(("", "39")) is not None
    assert memory.evictions > 0


def test_a_row_that_cannot_be_encoded_is_kept_as_it_is() -> None:
    """A text or a number that msgpack cannot hold is nobody's loss: the row is its own, and leaves with its holder."""
    memory: MemoryTier[Person] = MemoryTier(1000, 10**9, share=(Region,))
    for row in (Region(1, "\ud800"), Region(2**70, "far")):
        for name in ("ada", "bob"):
            memory.put(("", name), Entry(Person(name, (row, row), row), "db", 0.0, 100.0, 100.0, 0.0), 0.0)
            found = memory.get(("", name))
            assert found is not None
            assert found.value is not None
            assert found.value.home is row
            _check(memory)
        assert len(memory._sharing) == 1
    for name in ("ada", "bob"):
        memory.drop(name)
    assert (len(memory._sharing), memory.bytes) == (0, 0)


def test_what_cannot_be_weighed_changes_nothing() -> None:
    """A row that fails on the way in is told, and what was kept before can be dropped as if nothing had happened."""

    class Loud:
        @property
        def __dict__(self) -> dict[str, object]:  # type: ignore[override]  # as a careless class may have it
            raise RuntimeError("not now")

    class Team(msgspec.Struct, frozen=True):
        rows: tuple[Region | Loud, ...]

    def entry(*rows: Region | Loud) -> Entry[Team]:
        return Entry(Team(rows), "db", 0.0, 100.0, 100.0, 0.0)

    memory: MemoryTier[Team] = MemoryTier(1000, 10**9, share=(Region, Loud))
    kept = entry(Region(1, "one"))
    memory.put(("", "ada"), kept, 0.0)
    before = memory.bytes
    for name in ("ada", "bob"):
        with pytest.raises(RuntimeError):
            memory.put(("", name), entry(Region(1, "one"), Region(2, "two"), Loud()), 0.0)
        assert (memory.get(("", "ada")), memory.bytes, len(memory._sharing)) == (kept, before, 1)
        _check(memory)
    assert memory.drop("ada") == 1
    assert memory.bytes == 0


def test_a_row_leaves_with_the_last_who_holds_it() -> None:
    """Dropped, replaced, evicted or cleared, nobody leaves a row or a byte behind."""
    memory: MemoryTier[Person] = MemoryTier(3, 10**9, share=(Region,))
    for number in range(10):
        memory.put(("", str(number % 4)), _person(number, regions=number + 1), 0.0)
        held = {row for entry in memory._entries.values() if entry.value for row in entry.value.regions}
        assert len(memory._sharing) == len(held)
    for number in range(4):
        memory.drop(str(number))
    assert (len(memory._sharing), memory.bytes) == (0, 0)
    memory.put(("", "0"), _person(0), 0.0)
    memory.clear()
    assert (len(memory._sharing), memory.bytes) == (0, 0)


def test_the_same_entry_put_twice_is_held_once() -> None:
    """An entry that stands in is put back where it is: its rows are not given up on the way."""
    memory: MemoryTier[Person] = MemoryTier(3, 10**9, share=(Region,))
    entry = _person(1)
    memory.put(("", "1"), entry, 0.0)
    before = memory.bytes
    memory.put(("", "1"), entry, 0.0)
    assert (memory.bytes, len(memory._sharing)) == (before, 2)
    memory.drop("1")
    assert memory.bytes == 0


def test_rows_that_only_compare_equal_are_not_taken_for_one_another() -> None:
    """1, 1.0 and True are three things: nobody gets another's."""

    class Loose(msgspec.Struct, frozen=True):
        id: object

    class Holder(msgspec.Struct, frozen=True):
        row: Loose

    memory: MemoryTier[Holder] = MemoryTier(10, 10**9, share=(Loose,))
    for name, id in (("a", 1), ("b", 1.0), ("c", True)):  # noqa: A001 - the field's name
        memory.put(("", name), Entry(Holder(Loose(id)), "db", 0.0, 100.0, 100.0, 0.0), 0.0)
    kinds = [type(entry.value.row.id) for entry in memory._entries.values() if entry.value]
    assert kinds == [int, float, bool]


def test_those_asked_for_again_outlive_a_scan() -> None:
    """A thousand names asked for once each leave the regular ones where they are."""
    memory = _filled(100, max_entries=100, max_bytes=10**9)
    for number in range(90):
        memory.get(("", str(number)))
    for number in range(1000):
        memory.put(("", f"once{number}"), _entry(), 0.0)
    assert len(_names(memory, 90)) == 90


def test_who_comes_back_soon_after_leaving_is_a_regular_at_once() -> None:
    """A newcomer that left is remembered for as many others as there are places, and no longer."""
    memory = _filled(10, max_entries=10, max_bytes=10**9)
    memory.put(("", "10"), _entry(), 0.0)
    assert "0" not in _names(memory)
    memory.put(("", "0"), _entry(), 0.0)
    assert ("", "0") in memory._known._regulars
    memory.put(("", "99"), _entry(), 0.0)
    assert ("", "99") in memory._known._newcomers


def test_who_is_asked_for_again_outlasts_a_flood_where_bytes_are_the_limit() -> None:
    """Newcomers are few of those there is room for, not of those there might be if they were smaller."""
    memory: MemoryTier[str] = MemoryTier(100_000, 100)
    regulars: list[Key] = [("regular", str(number)) for number in range(80)]
    for key in regulars:
        memory.put(key, _entry(size=1), 0.0)
    for number in range(1000):
        for key in regulars:
            memory.get(key)
        memory.put(("passing", str(number)), _entry(size=1), 0.0)
    assert all(memory.get(key) for key in regulars)
    assert len(memory) == 100


def test_whose_row_is_read_stays_so_when_it_is_renewed() -> None:
    """That somebody was asked for is not forgotten with the entry that was replaced."""
    memory = _filled(4)
    memory.get(("", "0"))
    memory.put(("", "0"), _entry(), 0.0)
    memory.put(("", "4"), _entry(), 0.0)
    assert _names(memory) == ["0", "2", "3", "4"]


def test_the_dead_leave_before_the_living_where_many_have_died() -> None:
    """One put buries a few; where more room is needed than those had, it is the dead that make it."""
    memory: MemoryTier[str] = MemoryTier(1000, 1000)
    for number in range(50):
        memory.put(("", f"old{number}"), _entry(expires_at=50.0, stale_until=50.0), 0.0)
    for number in range(50):
        memory.put(("", str(number)), _entry(expires_at=900.0), 0.0)
    memory.put(("", "50"), _entry(expires_at=900.0, size=300), 100.0)
    assert _names(memory, 100) == [str(number) for number in range(51)]
    assert memory.evictions == 0
    _check(memory)


def test_where_there_is_no_fleet_nobody_is_noted_to_be_told_of() -> None:
    """A list that nobody empties would grow with every user who comes back."""
    memory = _filled(1)
    for _ in range(3):
        memory.drop("0")
        memory.put(("", "0"), _entry(), 0.0)
        memory.get(("", "0"))
    assert memory.take_recent(10) == []


def test_one_that_has_grown_stays_and_another_leaves() -> None:
    """Who was kept already is not the first to leave for want of the room it takes now."""
    memory: MemoryTier[str] = MemoryTier(5, 100)
    memory.put(("", "ada"), _entry(size=1), 0.0)
    memory.put(("", "bob"), _entry(size=58), 0.0)
    grown = _entry(size=43)
    memory.put(("", "ada"), grown, 0.0)
    assert memory.get(("", "ada")) is grown
    assert memory.get(("", "bob")) is None
    assert (memory.bytes, memory.evictions) == (43, 1)


def test_clearing_frees_nothing_at_once_and_everything_with_the_puts_that_follow() -> None:
    """Nobody finds what was cleared meanwhile, and what comes after it is left alone."""
    memory: MemoryTier[str] = MemoryTier(1000, 10**6, digest=digest_of)
    freed: list[int] = []
    for number in range(500):
        value = Value(f"before {number}")
        weakref.finalize(value, freed.append, number)
        memory.put(("", str(number)), _entry(value), 0.0)
    del value
    assert memory.clear() == 500
    assert (len(memory), memory.bytes, len(memory._remains)) == (0, 0, 2500)
    assert (freed, memory.get(("", "7"))) == ([], None)
    assert memory.names is not None
    assert memory.names.of(digest_of("7")) is None
    # Of each user the entry, its place in the queue, when it dies, its name and its digest.
    for number in range(25):
        assert len(memory._remains) == 2500 - 100 * number
        memory.put(("", str(number)), _entry("after"), 0.0)
    assert (len(memory._remains), len(freed), len(memory)) == (0, 500, 25)
    _check(memory)
    assert memory.names.of(digest_of("7")) == "7"
    memory.put(("", "25"), _entry("after"), 0.0)
    assert len(memory) == 26


class Value(str):
    """A text whose end can be noticed."""
