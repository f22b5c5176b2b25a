"""Whether a source of any making gives each user an answer or an error of its own, in as few calls as it takes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
import pytest

from ctxmiddleware import ConfigurationError, ContextPlugin, Identity
from ctxmiddleware.cache.base import Ask, Fetched
from ctxmiddleware.errors import SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.loading import BATCH_SIZE, Loading
from ctxmiddleware.sources.base import Loaded
from ctxmiddleware.testing import StaticSource
from tests.backends import asyncio_only
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio
USERS = [f"user{number}@example.org" for number in range(100)]


def _asks(emails: Sequence[str]) -> list[Ask]:
    return [Ask(Identity(email).cache_key, math.inf) for email in emails]


class Source:
    """A source that answers many through a function, and one by the same."""

    def __init__(self, answer: Callable[[Sequence[str]], Any]) -> None:
        self.answer = answer
        self.calls: list[int] = []

    async def fetch(self, identity: Identity) -> Any:
        self.calls.append(1)
        found = self.answer([identity.name])[identity.name]
        if isinstance(found, Exception):
            raise found
        return found

    async def fetch_many(self, identities: Sequence[Identity]) -> Any:
        self.calls.append(len(identities))
        found = self.answer([each.name for each in identities])
        return {Identity(email): each for email, each in found.items()} if isinstance(found, Mapping) else found


def _loading(source: Any, **options: Any) -> Loading[str]:
    return Loading(source, context_type=str, **options)


def _all(emails: Sequence[str]) -> Mapping[str, str]:
    return {email: f"context of {email}" for email in emails}


async def test_one_is_fetched_and_many_are_fetched_together() -> None:
    """A lone user takes the way for one, several the way for many; answers come in the order of the questions."""
    source = Source(_all)
    loading = _loading(source)
    assert loading.batch_size == BATCH_SIZE
    assert await loading(_asks(USERS[:1])) == [Fetched(f"context of {USERS[0]}", "Source")]
    assert await loading(_asks(USERS[3:0:-1])) == [Fetched(f"context of {each}", "Source") for each in USERS[3:0:-1]]
    assert source.calls == [1, 3]


async def test_a_source_without_fetch_many_is_asked_for_one_at_a_time() -> None:
    """Nothing is expected of a source but `fetch`."""

    class Bare:
        async def fetch(self, identity: Identity) -> str:
            return identity.name

    loading = _loading(Bare())
    assert loading.batch_size == 1
    assert await loading(_asks(USERS[:1])) == [Fetched(USERS[0], "Bare")]


async def test_every_kind_of_answer_is_told_apart() -> None:
    """A value, a value with its source's word, an unknown user, an error of one, and what is none of these."""
    wrong = SourceError("row is broken")
    answers = {"a": "value", "b": Loaded("loaded", "tables", 7.0), "c": None, "d": wrong, "e": 5, "f": Loaded(None)}
    found = await _loading(Source(lambda emails: answers))(_asks([*answers, "left out"]))
    assert found[:4] == [Fetched("value", "Source"), Fetched("loaded", "tables", 7.0), Fetched(None, "Source"), wrong]
    assert isinstance(found[4], SourceMisconfigured)
    assert found[5] == Fetched(None, "Source")
    assert isinstance(found[6], SourceError)
    assert not isinstance(found[6], (SourceMisconfigured, SourceUnavailable))


async def test_what_is_no_mapping_is_a_broken_source() -> None:
    """It is told as such, once, and nobody is taken for unknown."""
    source = Source(lambda emails: ["x"] * len(emails))
    found = await _loading(source)(_asks(USERS))
    assert all(isinstance(each, SourceMisconfigured) for each in found)
    assert source.calls == [100]


async def test_the_same_identity_asked_twice_is_answered_twice() -> None:
    """Two loads may be for one key, where an invalidation has overtaken the first; it travels once."""
    source = Source(_all)
    found = await _loading(source)(_asks(["a", "b", "a"]))
    assert [each.value for each in found if isinstance(each, Fetched)] == [
        "context of a",
        "context of b",
        "context of a",
    ]
    assert source.calls == [2]


@pytest.mark.parametrize("bad", [0, 37, 99])
@pytest.mark.parametrize("error", [SourceError("too large"), ValueError("bug"), SourceUnavailable("timeout")])
async def test_a_batch_that_one_user_spoils_is_split_until_it_is_found(bad: int, error: Exception) -> None:
    """The other ninety-nine are answered; finding the one costs two calls for each halving."""

    def answer(emails: Sequence[str]) -> Mapping[str, str]:
        if USERS[bad] in emails:
            raise error
        return _all(emails)

    source = Source(answer)
    found = await _loading(source)(_asks(USERS))
    assert found[bad] is error
    assert [each for place, each in enumerate(found) if place != bad] == [
        Fetched(f"context of {email}", "Source") for email in USERS if email != USERS[bad]
    ]
    assert len(source.calls) <= 15


async def test_a_batch_too_large_is_had_in_parts() -> None:
    """A source that takes ten at a time is asked for ten at a time."""

    def answer(emails: Sequence[str]) -> Mapping[str, str]:
        if len(emails) > 13:
            raise SourceError("too many")
        return _all(emails)

    source = Source(answer)
    found = await _loading(source)(_asks(USERS))
    assert all(isinstance(each, Fetched) for each in found)
    assert len(source.calls) == 15


@pytest.mark.parametrize("error", [SourceUnavailable("down", outage=True), SourceMisconfigured("no grant")])
async def test_where_nobody_can_be_answered_it_is_not_split(error: Exception) -> None:
    """One call is enough to know that a hundred would fail."""

    def answer(emails: Sequence[str]) -> Mapping[str, str]:
        raise error

    source = Source(answer)
    assert await _loading(source)(_asks(USERS)) == [error] * 100
    assert source.calls == [100]


async def test_a_source_is_guarded_by_a_breaker_for_each_of_its_ways() -> None:
    """After a few failures it is left alone; the way for many tells nothing of the way for one."""
    source = Source(_all)
    loading = _loading(source)
    source.answer = lambda emails: (_ for _ in ()).throw(SourceUnavailable("down"))
    for user in USERS[:5]:
        with pytest.raises(SourceUnavailable, match="down"):
            await loading(_asks([user]))
    assert loading.path_states() == {"fetch": "open", "fetch_many": "closed"}
    with pytest.raises(SourceUnavailable, match="left alone"):
        await loading(_asks(USERS[:1]))
    assert source.calls == [1] * 5


async def _given_up(loading: Loading[Any], email: str) -> None:
    """Let the time of a load end while its call hangs."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loading, _asks([email]))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_one_user_who_cannot_be_had_closes_the_way_to_nobody_else() -> None:
    """Asked for again and again, by whatever spelling, they are one failure; by the end of its time as by an error."""

    class Hangs(Source):
        async def fetch(self, identity: Identity) -> Any:
            if identity.name == USERS[0]:
                await anyio.sleep_forever()
            return await super().fetch(identity)

    source = Hangs(_all)
    loading = _loading(source)
    for spelling in [USERS[0], USERS[0].upper(), f" {USERS[0]}"] * 4:
        await _given_up(loading, spelling)
    assert loading.path_states()["fetch"] == "closed"
    assert await loading(_asks(USERS[1:2])) == [Fetched(f"context of {USERS[1]}", "Hangs")]
    source.answer = lambda emails: (_ for _ in ()).throw(SourceUnavailable("down"))
    await _given_up(loading, USERS[0])
    for user in USERS[1:5]:
        with suppress(SourceUnavailable):
            await loading(_asks([user]))
    assert loading.path_states()["fetch"] == "open"


async def test_calls_that_do_not_end_in_time_close_the_way() -> None:
    """Nothing but the end of its time cancels a load: a source that hangs has failed, however short that time is."""

    class Hangs(Source):
        async def fetch(self, identity: Identity) -> Any:
            self.calls.append(1)
            await anyio.sleep_forever()

    source = Hangs(_all)
    loading = _loading(source)
    for user in USERS[:5]:
        await _given_up(loading, user)
    assert loading.path_states()["fetch"] == "open"
    with pytest.raises(SourceUnavailable, match="left alone"):
        await loading(_asks(USERS[5:6]))
    assert source.calls == [1] * 5


async def test_a_source_that_guards_itself_is_not_guarded_twice() -> None:
    """Its own states are the ones that are shown."""

    class Guarded(Source):
        def path_states(self) -> Mapping[str, str]:
            return {"mine": "half-open"}

    source = Guarded(_all)
    source.answer = lambda emails: (_ for _ in ()).throw(SourceUnavailable("down"))
    loading = _loading(source)
    for _ in range(20):
        with pytest.raises(SourceUnavailable, match="down"):
            await loading(_asks(USERS[:1]))
    assert len(source.calls) == 20
    assert loading.path_states() == {"mine": "half-open"}


async def test_who_was_invalidated_elsewhere_is_told_to_the_source_before_it_is_asked() -> None:
    """A source that reads a replica must know first."""
    told: list[tuple[Identity | None, float]] = []

    class Told(Source):
        def invalidated(self, identity: Identity | None, *, ago: float) -> None:
            assert not self.calls
            told.append((identity, ago))

    moved = [(Identity("a"), 3.0), (Identity("b"), math.inf), (Identity(subject="c", tenant="acme"), 0.5)]
    await _loading(Told(_all))([Ask(identity.cache_key, ago) for identity, ago in moved])
    # An invalidation is of every tenant, and so the identity has none.
    assert told == [(Identity("a"), 3.0), (Identity(subject="c"), 0.5)]


async def test_a_cancelled_batch_is_cancelled_and_not_split() -> None:
    """What ends a load ends all of it."""

    class Hangs(Source):
        async def fetch_many(self, identities: Sequence[Identity]) -> Any:
            self.calls.append(len(identities))
            await anyio.sleep_forever()

    source = Hangs(_all)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_loading(source), _asks(USERS))
        await eventually_async(lambda: source.calls == [100])
        tasks.cancel_scope.cancel()
    assert source.calls == [100]


async def test_the_test_source_answers_many() -> None:
    """Users' own tests meet batches too."""
    source: StaticSource[str] = StaticSource({"a": "A", "b": SourceError("bad")})
    found = await _loading(source)(_asks(["a", "b", "c"]))
    assert found[0] == Fetched("A", "static")
    assert isinstance(found[1], SourceError)
    assert found[2] == Fetched(None, "static")
    assert (source.calls, source.batches) == ([], [(Identity("a"), Identity("b"), Identity("c"))])


@asyncio_only
async def test_a_cancellation_that_slips_out_for_one_user_does_not_fail_the_rest_of_his_batch() -> None:
    """Somebody cancelled what a source awaits for one user: he alone is told that it cannot answer."""

    class Leaking(Source):
        async def fetch(self, identity: Identity) -> Any:
            return (await self.fetch_many([identity]))[identity]

        async def fetch_many(self, identities: Sequence[Identity]) -> Any:
            if Identity(USERS[7]) in identities:
                inner = asyncio.ensure_future(asyncio.sleep(60))
                asyncio.get_running_loop().call_soon(inner.cancel)
                await inner
            return await super().fetch_many(identities)

    answers = await _loading(Leaking(_all))(_asks(USERS))
    failed = answers.pop(7)
    assert isinstance(failed, SourceUnavailable)
    assert isinstance(failed.__cause__, asyncio.CancelledError)
    assert answers == [Fetched(f"context of {each}", "Leaking") for each in USERS if each != USERS[7]]


class ByEmail(StaticSource[str]):
    """Finds users by their address."""

    finds_by = ("email",)


async def test_an_identity_of_another_kind_fails_alone() -> None:
    """The others of its batch are asked for, and it reaches no source that cannot find it."""
    source = ByEmail({"ada@example.org": "Ada"})
    loading: Loading[str] = Loading(source, context_type=str)
    identities = [Identity("ada@example.org"), Identity(subject="7")]
    ada, misfit = await loading([Ask(each.cache_key, math.inf) for each in identities])
    assert ada == Fetched("Ada", "static")
    assert isinstance(misfit, SourceMisconfigured)
    assert "finds users by email, and this identity is keyed by its subject" in str(misfit)
    with pytest.raises(SourceMisconfigured, match="finds users by email"):
        await loading([Ask(identities[1].cache_key, math.inf)])
    assert (source.calls, source.batches) == ([identities[0]], [])


async def test_a_batch_of_the_wrong_kind_does_not_reach_the_source() -> None:
    """Asked for nobody it might fail, and be asked again."""
    source = ByEmail({})
    loading: Loading[str] = Loading(source, context_type=str)
    answers = await loading([Ask(Identity(subject=each).cache_key, math.inf) for each in "78"])
    assert [type(each) for each in answers] == [SourceMisconfigured] * 2
    assert (source.calls, source.batches) == ([], [])


class DriverDown(Exception):
    """What a driver raises that cannot reach its database."""


class Down(StaticSource[str]):
    """A source whose driver cannot reach its database."""

    async def fetch(self, identity: Identity) -> Loaded[str]:
        raise DriverDown


async def test_a_driver_s_own_outage_is_one_where_it_is_named() -> None:
    """Elsewhere it stays what it is: an error of the source's code."""
    with pytest.raises(SourceUnavailable, match=r"cannot be reached \(DriverDown\)"):
        await Loading(Down({}), context_type=str, outage=(DriverDown,))([Ask(("", "eada@example.org"), math.inf)])
    with pytest.raises(DriverDown):
        await Loading(Down({}), context_type=str)([Ask(("", "eada@example.org"), math.inf)])


@pytest.mark.parametrize("outage", [DriverDown, (BaseException,), ("DriverDown",), None])
def test_an_outage_that_is_no_tuple_of_exceptions_is_refused(outage: Any) -> None:
    """At construction, where it can be mended."""
    with pytest.raises(ConfigurationError, match=r"outage was .*; it is a tuple of exception classes"):
        ContextPlugin(source=StaticSource({}), context_type=str, outage=outage)


def test_a_source_that_fails_to_take_note_of_an_invalidation_keeps_none_from_going_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other tiers are invalidated all the same; the failure is logged."""
    told: list[tuple[object, float]] = []

    class Failing(Source):
        def invalidated(self, identity: Identity | None, *, ago: float) -> None:
            told.append((identity, ago))
            raise ValueError("a bug")

    loading = _loading(Failing(_all))
    loading.tell_source(Identity(USERS[0]).cache_key[1], 2.0)
    loading.tell_source(None, 0.0)
    assert told == [(Identity(USERS[0]), 2.0), (None, 0.0)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
