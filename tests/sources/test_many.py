"""Whether many users travel as one call, each with an answer or an error of its own, by every way there is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import anyio
import msgspec
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.errors import SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.model import UserContext
from ctxmiddleware.sources.base import Loaded
from ctxmiddleware.sources.postgrest import BATCH_FUNCTION, FUNCTION, LONGEST_URL
from ctxmiddleware.sources.supabase import PIECES_AT_ONCE, Answers, SupabaseSource
from examples.servers import SupabaseFront, SupabaseProject

from ..waiting import eventually_async
from .conftest import (
    ADA,
    BUSY,
    GONE,
    IDLE,
    NEAR,
    ODD,
    Build,
    Clock,
    install_functions,
    one_dialect,
    people,
    trio_in_full,
)

pytestmark = [pytest.mark.anyio, trio_in_full]

ASKED = [*people(), " ADA@Example.com\t", "As.Stored@Example.COM", "O'HARA+NEWS@EXAMPLE.COM", "nobody@example.com"]
BATCH = f"rpc:{BATCH_FUNCTION}"
ONE = f"rpc:{FUNCTION}"


async def _many(source: SupabaseSource, emails: Sequence[str]) -> Answers:
    identities = [Identity(each) for each in emails]
    async with source:
        found = await source.fetch_many(identities)
    assert list(found) == identities
    return {email: found[identity] for email, identity in zip(emails, identities, strict=True)}


def _bytes(answers: Answers) -> dict[str, object]:
    return {
        email: str(answer) if isinstance(answer, SourceError) else msgspec.msgpack.encode(answer.value)
        for email, answer in answers.items()
    }


@pytest.fixture
def without_batch(project: SupabaseProject, front: SupabaseFront) -> Iterator[None]:
    """The project with the batch function hidden from the server's role: renamed, as where only the other exists."""
    project.execute(f"alter function hr.{BATCH_FUNCTION}(text[]) rename to hidden", reload=True)
    # The function for one calls the function for many: it keeps a copy that the API does not show under that name.
    project.execute(_INNER, reload=True)
    yield
    project.execute(f"alter function hr.hidden(text[]) rename to {BATCH_FUNCTION}", reload=True)
    install_functions(project)


_INNER = f"""
create or replace function hr.{FUNCTION}(p_email text) returns jsonb language sql stable security definer
set search_path = '' as $$ select nullif(hr.hidden(array[p_email]) -> p_email, 'null') $$;
"""


async def test_many_users_are_one_call_and_get_the_same_bytes(build: Build, front: SupabaseFront) -> None:
    """Odd addresses, odd spellings and unknown users: each answer is the one it would have got alone."""
    await _many(build(), [ADA])  # a call that was cut off by what other tests did to the database is made twice
    front.reset()
    answers = await _many(build(), ASKED)
    assert front.counts().kinds == {BATCH: 1}
    async with build() as source:
        alone = {email: await source.fetch(Identity(email)) for email in ASKED}
    assert list(answers) == ASKED
    assert _bytes(answers) == _bytes(dict(alone))
    assert {answer.origin for answer in answers.values() if isinstance(answer, Loaded)} == {"rpc"}


async def test_a_read_replica_is_asked_by_get_and_the_addresses_arrive_whole(
    build: Build, replica: SupabaseFront, front: SupabaseFront
) -> None:
    """Quotes, commas, braces and letters of every script survive the array in the URL."""
    asked = [*ASKED, "{brace}@example.com", "back\\slash,comma@example.com"]
    answers = await _many(build(read_url=replica.url), asked)
    alone = await _many(build(), asked)
    assert _bytes(answers) == _bytes(alone)
    assert replica.counts().kinds == {BATCH: 1}


async def test_urls_stay_short(build: Build, replica: SupabaseFront, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred long addresses take as many reads as fit 4 KB each, and none is lost."""
    asked = [f"{'long' * 30}{number:03}@example.com" for number in range(100)]
    source = build(read_url=replica.url)
    urls: list[int] = []
    send = source._transport.send

    async def measured(call: object) -> object:
        urls.append(len(call.url))  # type: ignore[attr-defined]
        return await send(call)  # type: ignore[arg-type]

    monkeypatch.setattr(source._transport, "send", measured)
    answers = await _many(source, asked)
    assert answers == dict.fromkeys(asked, Loaded[UserContext](None, origin="rpc"))
    assert len(urls) > 3
    assert max(urls) < LONGEST_URL


async def test_the_pieces_of_a_batch_are_read_a_few_at_a_time(build: Build, replica: SupabaseFront) -> None:
    """Long addresses make many URLs of a batch: they do not wait for one another, nor take every connection."""
    asked = [f"{'long' * 60}{number:03}@example.com" for number in range(100)]
    replica.delay(100)
    answers = await _many(build(read_url=replica.url), asked)
    assert answers == dict.fromkeys(asked, Loaded[UserContext](None, origin="rpc"))
    assert replica.counts().most_under_way == PIECES_AT_ONCE


async def test_a_piece_that_fails_takes_no_answers_of_the_others(
    build: Build, replica: SupabaseFront, front: SupabaseFront
) -> None:
    """What was answered before is kept and not asked for again; the others are asked for one by one."""
    asked = [f"{'long' * 30}{number:03}@example.com" for number in range(100)]
    replica.disturb("cut", times=1, contains="long099", after=1)
    front.disturb("cut", times=1, contains=BATCH_FUNCTION, after=1)
    answers = await _many(build(read_url=replica.url), asked)
    assert answers == dict.fromkeys(asked, Loaded[UserContext](None, origin="rpc"))
    assert 0 < replica.counts().rpc(FUNCTION) < 30


async def test_whoever_was_just_invalidated_is_read_from_the_primary(
    build: Build, replica: SupabaseFront, front: SupabaseFront
) -> None:
    """The rest of the batch goes to the replica all the same."""
    source = build(read_url=replica.url)
    source.invalidated(Identity(ADA))
    answers = await _many(source, [ADA, BUSY, IDLE])
    assert all(isinstance(answer, Loaded) and answer.value for answer in answers.values())
    assert (front.counts().kinds, replica.counts().kinds) == ({BATCH: 1}, {BATCH: 1})


async def test_at_most_a_hundred_addresses_travel_together(build: Build, front: SupabaseFront) -> None:
    """Two hundred and fifty take three calls."""
    asked = [f"nobody{number}@example.com" for number in range(250)]
    answers = await _many(build(), asked)
    assert len(answers) == 250
    assert front.counts().kinds == {BATCH: 3}


async def test_addresses_no_database_can_hold_are_unknown_without_asking(build: Build, front: SupabaseFront) -> None:
    """They neither travel nor spoil the batch."""
    bad = ["a\x00@example.com", "x" * 10_000]
    answers = await _many(build(), [*bad, ADA])
    assert [answers[email] for email in bad] == [Loaded(None)] * 2
    assert isinstance(answers[ADA], Loaded)
    front.reset()
    assert await _many(build(), bad) == dict.fromkeys(bad, Loaded[UserContext](None))
    assert front.counts().requests == 0


async def test_an_address_of_two_people_is_nobody_s_and_harms_nobody(build: Build, project: SupabaseProject) -> None:
    """The function leaves it out: that is its error, and never an unknown user."""
    project.execute("insert into hr.employees values (900, ' ADA@example.com ', 'Other', null, 'rep', true)")
    try:
        answers = await _many(build(), [ADA, GONE])
    finally:
        project.execute("delete from hr.employees where id = 900")
    assert isinstance(answers[ADA], SourceError)
    assert not isinstance(answers[ADA], SourceUnavailable)
    assert "@" not in str(answers[ADA])
    assert isinstance(answers[GONE], Loaded)


@pytest.mark.usefixtures("without_batch")
async def test_where_only_the_function_for_one_exists_each_is_called(
    build: Build, front: SupabaseFront, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """That it is missing is remembered for that function alone, said once, and tried again after a minute."""
    asked = [ADA, *ODD[:5], "nobody@example.com"]
    async with build() as source:
        with caplog.at_level(logging.INFO, "ctxmiddleware"):
            for _ in range(2):
                answers = await source.fetch_many([Identity(each) for each in asked])
        assert front.counts().kinds == {BATCH: 1, ONE: 2 * len(asked)}
        assert all(isinstance(answer, Loaded) and answer.origin == "rpc" for answer in answers.values())
        clock.now += 60
        await source.fetch_many([Identity(each) for each in asked])
        assert front.counts().kinds[BATCH] == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert BATCH_FUNCTION in caplog.text


@pytest.mark.usefixtures("without_function")
async def test_where_no_function_exists_the_tables_are_read(build: Build, front: SupabaseFront) -> None:
    """Both are found missing, each once at a time, and every user is put together from the tables."""
    asked = [ADA, IDLE, *NEAR]
    answers = await _many(build(), asked)
    assert all(isinstance(answer, Loaded) and answer.origin == "legacy" for answer in answers.values())
    assert front.counts().kinds[BATCH] == 1
    assert front.counts().table("employees") == len(asked)


@one_dialect
async def test_a_source_that_is_down_fails_the_call_and_is_not_asked_for_each(
    build: Build, front: SupabaseFront
) -> None:
    """An outage is told as one, so that nobody splits the batch to ask a hundred times."""
    front.fault(status=503, times=None)
    with pytest.raises(SourceUnavailable) as told:
        await _many(build(), [ADA, IDLE])
    assert told.value.outage


@one_dialect
async def test_a_way_that_keeps_failing_is_left_alone(
    build: Build, front: SupabaseFront, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """After a few failures no call is made; after a while one is, and its answer opens the way again."""
    front.fault(status=503, times=None)
    async with build() as source:
        with caplog.at_level(logging.INFO, "ctxmiddleware"):
            for _ in range(8):
                with pytest.raises(SourceUnavailable) as told:
                    await source.fetch(Identity(ADA))
            assert source.path_states() == {"rpc": "open", "batch": "closed", "tables": "closed"}
            assert told.value.outage
            assert (told.value.retry_after or 0) >= 1
            asked = front.counts().requests
            with pytest.raises(SourceUnavailable):
                await source.fetch(Identity(ADA))
            assert front.counts().requests == asked
            front.reset()
            clock.now += 1
            assert source.path_states()["rpc"] == "half-open"
            assert (await source.fetch(Identity(ADA))).value is not None
        assert source.path_states()["rpc"] == "closed"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "@" not in caplog.text


@one_dialect
async def test_what_is_too_much_for_one_call_is_had_one_by_one(
    build: Build, front: SupabaseFront, project: SupabaseProject
) -> None:
    """While the way for many is left alone and the way for one works, a batch goes that way."""
    async with build() as source:
        for _ in range(5):
            with pytest.raises(SourceUnavailable):
                await source._paths.through("batch", _times_out)
        answers = await source.fetch_many([Identity(ADA), Identity(IDLE), Identity("nobody@example.com")])
        assert [isinstance(answer, Loaded) for answer in answers.values()] == [True] * 3
    assert front.counts().kinds == {ONE: 3}


async def _times_out() -> None:
    raise SourceUnavailable("down", outage=True)


@one_dialect
async def test_one_by_one_stops_where_nobody_can_be_answered(build: Build, front: SupabaseFront) -> None:
    """The first outage ends it: the rest get that error, not a call each."""
    asked = [f"nobody{number}@example.com" for number in range(100)]
    async with build() as source:
        source._batch_absence.seen(absent=True)
        front.fault(status=503, times=None)
        answers = await source.fetch_many([Identity(each) for each in asked])
    assert all(isinstance(answer, SourceUnavailable) and answer.outage for answer in answers.values())
    assert front.counts().requests < 40


@one_dialect
async def test_a_cancelled_batch_leaves_the_source_whole(build: Build, front: SupabaseFront) -> None:
    """Whoever leaves in the middle takes nothing along; the next batch is answered."""
    async with build() as source:
        front.disturb("hang")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.fetch_many, [Identity(ADA), Identity(IDLE)])
            await eventually_async(lambda: front.counts().rpc(BATCH_FUNCTION) == 1)
            tasks.cancel_scope.cancel()
        front.reset()
        answers = await source.fetch_many([Identity(ADA), Identity(IDLE)])
    assert all(isinstance(answer, Loaded) and answer.value for answer in answers.values())


@one_dialect
async def test_a_missing_grant_is_an_operator_s_affair(build: Build, project: SupabaseProject) -> None:
    """It is neither an outage nor a reason to go another way."""
    project.execute(f"revoke execute on function hr.{BATCH_FUNCTION}(text[]) from service_role", reload=True)
    try:
        with pytest.raises(SourceMisconfigured):
            await _many(build(), [ADA, IDLE])
    finally:
        project.execute(f"grant execute on function hr.{BATCH_FUNCTION}(text[]) to service_role", reload=True)
