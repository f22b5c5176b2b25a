"""Whether what is made to fail fails as it says, in as many places as it says, and works again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from ctxmiddleware.cache.redis.keys import KeySpace
from examples.servers import Valkey

from .acts import LISTENERS, commanded, forget_the_list, restarted_empty, restarted_from_a_file
from .chaos import Chaos
from .faults import KINDS, PARTITIONS, Kind
from .fleet import LISTED, PLACES, Fleet
from .history import History
from .tally import Tally


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server that may be killed."""
    with Valkey.start() as server:
        yield server


def _keys(valkey: Valkey) -> list[bytes]:
    with redis.Redis.from_url(valkey.url) as client:
        return sorted(client.keys())


def _set(valkey: Valkey, key: str) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.set(key, "1")


def test_valkey_comes_back_with_what_it_had_written_and_with_nothing_later(valkey: Valkey) -> None:
    """Writes after the file are lost; the next restart, from no file, loses everything."""
    _set(valkey, "before")
    with restarted_from_a_file(valkey):
        _set(valkey, "after")
    assert _keys(valkey) == [b"before"]
    with restarted_empty(valkey):
        assert not valkey.running
    assert _keys(valkey) == []


def test_the_list_of_instances_is_deleted_and_nothing_else(valkey: Valkey) -> None:
    """It is found by its key, whatever the namespace."""
    channel = KeySpace("some", b"").channel()
    for key in channel[:3]:
        _set(valkey, key)
    fleet = cast("Fleet", SimpleNamespace(valkey=valkey))
    with commanded(fleet, lambda client: forget_the_list(client, random.Random(1))):
        assert _keys(valkey) == sorted(key.encode() for key in channel[:2])
    # Lost already.
    with commanded(fleet, lambda client: forget_the_list(client, random.Random(1))):
        pass
    assert LISTENERS.startswith("ctx:")


def _chaos(*kinds: Kind, seed: int = 1, partitions: Sequence[Kind] = ()) -> Chaos:
    fleet = cast("Fleet", SimpleNamespace(instances=[None] * PLACES))
    return Chaos(fleet, History(1.0), Tally(), random.Random(seed), kinds=kinds, partitions=partitions)


def _kind(name: str, *touches: str, **more: Any) -> Kind:
    return Kind(name, touches, (), 1.0, lambda *_: nullcontext(), **more)


def test_a_fault_of_one_place_comes_to_two_at_a_time() -> None:
    """About every other time; one of the whole fleet comes once."""
    chaos = _chaos(_kind("one", "process {}"), _kind("all", "valkey"))
    drawn = [chaos._drawn() for _ in range(400)]
    places = {name: [len(slots) for kind, slots in drawn if kind and kind.name == name] for name in ("one", "all")}
    assert set(places["one"]) == {1, 2}
    assert 60 < places["one"].count(2) < 140
    assert set(places["all"]) == {1}


def test_no_two_faults_work_on_one_part() -> None:
    """A place where something fails is left out, and a kind waits that has none left."""
    chaos = _chaos(_kind("one", "redis {}", "source {}"))
    chaos._touched = {f"redis {slot}" for slot in range(PLACES - 1)}
    for _ in range(20):
        assert chaos._drawn()[1] == [PLACES - 1]
    chaos._touched.add(f"source {PLACES - 1}")
    assert chaos._drawn() == (None, ())


def test_the_list_is_lost_in_one_round_of_three() -> None:
    """In between it becomes old enough for reports that rely on it."""
    chaos = _chaos(_kind("lost", "valkey", loses_the_list=True), _kind("other", "valkey"))
    names = [kind.name for kind, _ in (chaos._drawn() for _ in range(12)) if kind]
    assert (names.count("lost"), names.count("other")) == (3, 9)
    assert {kind.name for kind in KINDS if kind.loses_the_list} >= {"FLUSHALL", "the list of instances deleted"}


def test_beside_partitions_the_list_is_lost_later() -> None:
    """An instance that is cut off has left a list that is old, of which reports say that none is missing."""
    chaos = _chaos(_kind("lost", "valkey", loses_the_list=True), _kind("other", "valkey"), partitions=PARTITIONS)
    assert [kind.name for kind, _ in (chaos._drawn() for _ in range(2)) if kind] == ["other", "other"]
    assert {kind.name for kind, _ in (chaos._drawn() for _ in range(2)) if kind} == {"lost", "other"}


def test_partitions_outlast_a_minute_and_the_list() -> None:
    """With Redis alone, and with the source too."""
    for kind in PARTITIONS:
        assert all(kind.lasts(random.Random(seed)) > max(60.0, LISTED + 5.0) for seed in range(50))
    assert [kind.felt for kind in PARTITIONS] == [("redis",), ("redis", "source")]


def test_kinds_that_were_under_way_at_the_same_time_are_pairs() -> None:
    """One that met no other is named."""
    tally = Tally()
    tally.began("a")
    tally.began("a", places=2)
    tally.ended("a")
    tally.began("b")
    tally.ended("a")
    tally.ended("b")
    tally.began("c")
    assert tally.pairs == {frozenset("ab")}
    assert tally.met_none == ["c"]
    assert (tally.faults["a"], tally.doubled["a"]) == (2, 1)
