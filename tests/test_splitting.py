"""Whether a batch that fails costs nobody else an answer, and a source that is down only a few calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio
import pytest

from ctxmiddleware import CachePolicy, ContextPlugin, Identity
from ctxmiddleware.cache.base import Ask, Fetched
from ctxmiddleware.errors import SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.loading import Loading
from ctxmiddleware.sources.base import Loaded
from ctxmiddleware.sources.exchange import RequestRefused
from ctxmiddleware.sources.singly import singly
from ctxmiddleware.splitting import IN_VAIN
from tests.backends import asyncio_only

from .matrix import some

pytestmark = pytest.mark.anyio
USERS = [f"user{number}@example.org" for number in range(100)]
UNAVAILABLE = SourceUnavailable("a query took too long")


class Spoilt:
    """A source that fails for some users, alone and in whatever batch they are in.

    Args:
        bad: the users.
        error: what is raised for each of them, or None where their call hangs.
        many: what is raised for a batch that one of them is in.
    """

    def __init__(self, *bad: int, error: Exception | None = UNAVAILABLE, many: Exception | None = UNAVAILABLE) -> None:
        self.bad = {USERS[number] for number in bad}
        self.error = error
        self.many = many
        self.calls: list[int] = []
        self.deadlines: list[float] = []

    async def fetch(self, identity: Identity) -> Any:
        self.calls.append(1)
        if identity.name in self.bad:
            await _fail(self.error)
        return identity.name

    async def fetch_many(self, identities: Sequence[Identity]) -> Mapping[Identity, Any]:
        self.calls.append(len(identities))
        if not self.bad.isdisjoint(each.name for each in identities):
            await _fail(self.many)
        return {each: each.name for each in identities}


class Slow(Spoilt):
    """Fails for the whole batch, and hangs for each part of it that fails again."""

    def path_states(self) -> Mapping[str, str]:
        return {}  # it keeps its own time

    async def fetch_many(self, identities: Sequence[Identity]) -> Mapping[Identity, Any]:
        self.deadlines.append(anyio.current_effective_deadline())
        if self.bad & {each.name for each in identities} and len(identities) < len(USERS):
            await anyio.sleep_forever()
        return await super().fetch_many(identities)


async def _fail(error: Exception | None) -> None:
    if error is None:
        await anyio.sleep_forever()
        return
    raise error


async def _load(source: Any, *, load_timeout: float = math.inf) -> tuple[set[str], list[Fetched[str] | Exception]]:
    """Ask for all users at once; return who was answered, and everything."""
    loading = Loading(source, context_type=str, load_timeout=load_timeout)
    found = await loading([Ask(Identity(email).cache_key, math.inf) for email in USERS])
    return {email for email, each in zip(USERS, found, strict=True) if isinstance(each, Fetched)}, found


@pytest.mark.parametrize("bad", [(0, 1), (10, 11), (11, 12), (49, 50), (97, 98, 99), (3, 90)])
async def test_users_who_cannot_be_had_cost_the_others_nothing(bad: tuple[int, ...]) -> None:
    """Neither neighbours nor many of them end the batch of all others."""
    source = Spoilt(*bad)
    answered, found = await _load(source)
    assert set(USERS) - answered == source.bad
    assert all(found[number] is UNAVAILABLE for number in bad)


@pytest.mark.parametrize("error", [UNAVAILABLE, SourceError("division by zero"), RuntimeError("a bug")])
async def test_a_source_that_answers_nobody_costs_a_few_calls(error: Exception) -> None:
    """It may not call itself down: after a dozen calls in vain, of many and of one, the others are told so."""
    source = Spoilt(*range(100), error=error, many=error)
    answered, found = await _load(source)
    assert not answered
    assert len(source.calls) < 2 * IN_VAIN + 8
    # Another one's row or bug is not told of them, and what is known of them may stand in.
    assert isinstance(found[99], SourceUnavailable)


async def test_a_way_for_many_that_never_works_leaves_the_way_for_one() -> None:
    """After a dozen calls in vain everybody is asked for alone, and answered."""
    source = Spoilt(*range(100))
    source.bad = set(USERS)
    source.fetch = _echo  # type: ignore[method-assign]
    assert (await _load(source))[0] == set(USERS)
    assert len(source.calls) <= IN_VAIN


async def test_a_success_in_between_begins_the_count_anew() -> None:
    """Many users who spoil batches are found by halving: hardly anybody else is asked for alone."""
    source = Spoilt(3, 17, 30, 44, 60, 71, 90)
    source.fetch = _echo  # type: ignore[method-assign]
    answered, _ = await _load(source)
    assert answered == set(USERS)
    assert sum(size > 1 for size in source.calls) > 3 * IN_VAIN


async def test_of_single_users_only_failures_in_a_row_end_it() -> None:
    """An answer among them shows that the source is there; what is one user's error does not count against it."""
    found: dict[str, str | SourceError] = {}

    async def ask(email: str) -> str:
        number = USERS.index(email)
        if number == 50:
            raise SourceError("a wrong row")
        if number < 80 and number % 3:
            raise UNAVAILABLE
        if number >= 90:
            raise UNAVAILABLE
        return email

    assert await singly(USERS, ask, found, in_vain=3, errors=SourceError) is UNAVAILABLE
    assert list(found) == USERS[:93]


async def _echo(identity: Identity) -> str:
    return identity.name


@pytest.mark.parametrize("bad", some([99, 0, 50], 1))
async def test_one_user_whose_call_hangs_costs_the_others_no_answer(bad: int) -> None:
    """When the time of the load ends, those who were answered have their answers."""
    answered, found = await _load(Spoilt(bad, error=None), load_timeout=2.0)
    assert set(USERS) - answered == {USERS[bad]}
    assert isinstance(found[bad], SourceUnavailable)


async def test_what_was_answered_when_the_time_ends_is_kept() -> None:
    """Halving that takes longer than the load may ends before the load would be ended from outside, and all with it."""
    source, began = Slow(99), anyio.current_time()
    answered, found = await _load(source, load_timeout=1.0)
    assert answered == set(USERS[:50])
    assert str(found[99]) == "the source did not answer within 1 s"
    assert source.calls == [100, 50]
    assert max(source.deadlines) < began + 1.0


async def test_a_batch_that_hangs_leaves_half_of_its_time_to_calls_for_one() -> None:
    """Whom the way for many does not answer in time the way for one does."""
    source = Spoilt(5, error=None, many=None)
    answered, _ = await _load(source, load_timeout=2.0)
    assert set(USERS) - answered == {USERS[5]}


async def test_while_the_way_for_many_is_closed_everybody_is_asked_for_alone() -> None:
    """A source's own `fetch` that works is used, however often its `fetch_many` failed."""
    source = Spoilt(*range(100), many=TimeoutError())
    source.fetch = _echo  # type: ignore[method-assign]
    loading = Loading(source, context_type=str)
    for _ in range(6):
        found = await loading([Ask(Identity(email).cache_key, math.inf) for email in USERS])
        assert found == [Fetched(email, "Spoilt") for email in USERS]
    assert loading.path_states()["fetch_many"] == "open"
    assert source.calls == [100] * 5


async def test_a_way_for_many_that_hangs_is_closed() -> None:
    """What takes more than its share of a load's time has failed, as what says so itself."""
    source = Spoilt(*range(100), many=None)
    source.fetch = _echo  # type: ignore[method-assign]
    loading = Loading(source, context_type=str, load_timeout=0.1)
    for _ in range(6):
        await loading([Ask(Identity(email).cache_key, math.inf) for email in USERS])
    assert loading.path_states()["fetch_many"] == "open"
    assert source.calls == [100] * 5


async def test_a_refusal_of_one_request_is_not_taken_for_everybodys() -> None:
    """A gateway's firewall takes offence at one address: the others are answered."""
    refused = RequestRefused("a gateway before the API refused the request")
    source = Spoilt(40, error=refused, many=refused)
    answered, found = await _load(source)
    assert set(USERS) - answered == {USERS[40]}
    assert found[40] is refused


async def test_a_wrong_type_for_one_user_is_his_alone() -> None:
    """What is misconfigured about one user's context ends nobody else's load."""
    source = Spoilt(0, many=SourceError("not with this one"), error=SourceMisconfigured("a wrong type"))
    answered, _ = await _load(source)
    assert set(USERS) - answered == {USERS[0]}


@pytest.mark.parametrize("ttl", [timedelta(seconds=60), "60", True])
async def test_a_time_to_live_that_is_no_number_is_one_users_error(ttl: Any) -> None:
    """It names what is wrong; the rest of the batch is answered, in one call."""

    class Odd(Spoilt):
        async def fetch_many(self, identities: Sequence[Identity]) -> Mapping[Identity, Any]:
            return {**await super().fetch_many(identities), Identity(USERS[3]): Loaded("context", ttl=ttl)}

    source = Odd()
    answered, found = await _load(source)
    assert set(USERS) - answered == {USERS[3]}
    assert isinstance(found[3], SourceMisconfigured)
    assert "ttl" in str(found[3])
    assert source.calls == [100]


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), TimeoutError(), OSError("network")])
async def test_an_error_of_the_network_that_a_source_lets_out_means_it_is_unavailable(error: Exception) -> None:
    """So what is known stands in, and after a few of them the source is left alone."""
    source = Spoilt(*range(100), error=error)
    loading = Loading(source, context_type=str)
    for user in USERS[:5]:
        with pytest.raises(SourceUnavailable) as caught:
            await loading([Ask(Identity(user).cache_key, math.inf)])
        assert caught.value.__cause__ is error
    assert loading.path_states()["fetch"] == "open"


@asyncio_only  # trio starts its tasks in any order, and the one who spoils it must be the last
async def test_the_cache_gives_a_batch_its_time() -> None:
    """As an app asks: of a hundred misses some are not answered in time, and the others have their contexts."""
    contexts: set[object] = set()
    source, policy = Slow(99), CachePolicy(load_timeout=5.0)
    plugin = ContextPlugin(source=source, context_type=str, policy=policy)

    async def ask(email: str) -> None:
        with suppress(SourceUnavailable):
            contexts.add((await plugin.resolve(email)).context)

    async with plugin, anyio.create_task_group() as tasks:
        for email in USERS:
            tasks.start_soon(ask, email)
    assert contexts == set(USERS[:50])
