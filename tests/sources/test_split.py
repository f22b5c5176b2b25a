"""Whether a batch that the real database cannot answer as a whole is answered in parts, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import anyio
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.breaker import State
from ctxmiddleware.cache.base import Ask, Fetched
from ctxmiddleware.errors import SourceError, SourceUnavailable
from ctxmiddleware.loading import Loading
from ctxmiddleware.model import UserContext
from ctxmiddleware.sources.exchange import OutOfTime
from ctxmiddleware.sources.postgrest import BATCH_FUNCTION, FUNCTION
from ctxmiddleware.sources.supabase import ONE_BY_ONE_AT_ONCE, SupabaseSource
from ctxmiddleware.sources.transport import MAX_BODY
from examples.servers import SupabaseFront, SupabaseProject
from examples.servers.supabase.app import Dialect
from examples.servers.supabase.faults import Action

from ..backends import ASYNCIO
from ..waiting import eventually_async
from .conftest import (
    ADA,
    IDLE,
    LONG,
    NEAR,
    ODD,
    Build,
    Clock,
    install_functions,
    newer_dialect,
    one_dialect,
    patient,
    trio_in_full,
)

pytestmark = pytest.mark.anyio

BATCH = f"rpc:{BATCH_FUNCTION}"
ONE = f"rpc:{FUNCTION}"
ASKED = [ADA, IDLE, *ODD, *NEAR]
BAD = ODD[4]

# What a database does is the same to every event loop.
one_loop = pytest.mark.parametrize("anyio_backend", [ASYNCIO])


@contextmanager
def spoilt(project: SupabaseProject, fault: str) -> Iterator[None]:
    """Let the function for many do this before it answers: it is asked for `p_emails` and answers with `answer`."""
    project.execute(
        f"""
        alter function hr.{BATCH_FUNCTION}(text[]) rename to whole;
        create function hr.{BATCH_FUNCTION}(p_emails text[]) returns jsonb language plpgsql stable security definer
        set search_path = '' as $spoilt$
        declare
          answer jsonb := hr.whole(p_emails);
        begin
          {fault}
          return answer;
        end $spoilt$;
        """,
        reload=True,
    )
    try:
        yield
    finally:
        project.execute(
            f"drop function hr.{BATCH_FUNCTION}(text[]); alter function hr.whole rename to {BATCH_FUNCTION}",
            reload=True,
        )
        install_functions(project)


def _raising(code: str, *, when: str) -> str:
    return f"if {when} then raise exception 'by a test' using errcode = '{code}'; end if;"


async def load(
    source: SupabaseSource, emails: Sequence[str] = ASKED
) -> tuple[set[str], dict[str, SourceError], Mapping[str, State]]:
    """Ask as the cache does; return who was answered, the errors of the others, and the state of each way."""
    loading = Loading(source, context_type=UserContext)
    found = await loading([Ask(Identity(email).cache_key, math.inf) for email in emails])
    answered = {email for email, each in zip(emails, found, strict=True) if isinstance(each, Fetched) and each.value}
    errors = {email: each for email, each in zip(emails, found, strict=True) if isinstance(each, SourceError)}
    return answered, errors, source.path_states()


@newer_dialect
@one_loop
async def test_one_bad_row_is_one_user_s_error(build: Build, front: SupabaseFront, project: SupabaseProject) -> None:
    """The others are answered by the same call, and the error names the field and not the user."""
    bad = f"answer := jsonb_set(answer, array['{BAD}', 'employee', 'full_name'], 'null');"
    with spoilt(project, bad):
        async with build() as source:
            answered, errors, _ = await load(source)
    assert (answered, set(errors)) == (set(ASKED) - {BAD}, {BAD})
    assert str(errors[BAD]).startswith("employees.full_name: ")
    assert front.counts().kinds == {BATCH: 1}


@newer_dialect
@one_loop
async def test_a_user_the_answer_leaves_out_is_an_error_and_never_unknown(
    build: Build, project: SupabaseProject
) -> None:
    """Who is known must not be locked out by an answer that is not whole."""
    with spoilt(project, f"answer := answer - '{BAD}';"):
        async with build() as source:
            answered, errors, _ = await load(source)
    assert (answered, set(errors)) == (set(ASKED) - {BAD}, {BAD})


@newer_dialect
@one_loop
async def test_a_query_that_one_user_breaks_is_asked_in_halves(
    build: Build, front: SupabaseFront, project: SupabaseProject
) -> None:
    """Whoever it is, the others are answered, in a few calls more for each halving."""
    with spoilt(project, _raising("22012", when=f"'{BAD}' = any(p_emails)")):
        async with build() as source:
            for _ in range(5):
                answered, errors, paths = await load(source)
                assert (answered, set(errors)) == (set(ASKED) - {BAD}, {BAD})
                assert set(paths.values()) == {"closed"}
    assert front.counts().requests <= 5 * 11


@newer_dialect
@one_loop
async def test_a_user_whose_query_never_ends_in_time_harms_nobody(
    build: Build, front: SupabaseFront, project: SupabaseProject
) -> None:
    """However often that one is asked for, all others are answered, and the way for one stays open to them."""
    with spoilt(project, _raising("57014", when=f"'{BAD}' = any(p_emails)")):
        async with build() as source:
            for _ in range(8):
                answered, errors, paths = await load(source)
                assert (answered, set(errors)) == (set(ASKED) - {BAD}, {BAD})
                assert paths["rpc"] == "closed"
            for _ in range(8):
                with pytest.raises(SourceUnavailable, match="57014"):
                    await source.fetch(Identity(BAD))
            assert (await source.fetch(Identity(ADA))).value is not None


@newer_dialect
@one_loop
async def test_many_at_once_that_never_end_in_time_are_had_one_by_one(
    build: Build, front: SupabaseFront, project: SupabaseProject, clock: Clock
) -> None:
    """The first is tried, and again; then the way for many is left alone, and each try of it costs nobody an answer."""
    with spoilt(project, _raising("57014", when="cardinality(p_emails) > 1")):
        async with build() as source:
            for _ in range(5):
                answered, _, paths = await load(source)
                assert answered == set(ASKED)
            assert paths == {"rpc": "closed", "batch": "open", "tables": "closed"}
            front.reset()
            assert (await load(source))[0] == set(ASKED)
            assert front.counts().kinds == {ONE: len(ASKED)}
            clock.now += 1
            assert source.path_states()["batch"] == "half-open"
            answered, _, paths = await load(source)
            assert (answered, paths["batch"]) == (set(ASKED), "open")
            assert front.counts().rpc(BATCH_FUNCTION) == 2
    clock.now += 2
    async with source:
        assert (await load(source))[2]["batch"] == "closed"


@one_dialect
async def test_while_the_way_for_many_is_tried_others_go_one_by_one(
    build: Build, front: SupabaseFront, clock: Clock
) -> None:
    """A try that hangs keeps no load waiting but the one it is for."""
    async with build() as source:
        for _ in range(5):
            with pytest.raises(OutOfTime):
                await source._paths.through("batch", _runs_out_of_time, many=True)
        assert source.path_states()["batch"] == "open"
        clock.now += 1
        front.disturb("hang", times=None, contains=BATCH_FUNCTION)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, source)
            await eventually_async(lambda: front.counts().rpc(BATCH_FUNCTION) == 1)
            with anyio.fail_after(LONG / 2):
                assert (await load(source))[0] == set(ASKED)
            assert front.counts().kinds == {BATCH: 1, ONE: len(ASKED)}
            tasks.cancel_scope.cancel()


async def _runs_out_of_time() -> None:
    raise OutOfTime("no answer in time")


@trio_in_full
@one_dialect
async def test_a_load_that_may_take_less_than_the_client_has_its_batch_split(
    build: Build, front: SupabaseFront
) -> None:
    """The call for many has half of the time; after a few that hang its way is left alone."""
    front.disturb("hang", times=None, contains=BATCH_FUNCTION)
    async with build() as source:
        # The half that is left is enough for two, however busy the machine is.
        loading = Loading(source, context_type=UserContext, load_timeout=8.0)
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(_all_known, loading, ASKED[:2])
        assert source.path_states() == {"rpc": "closed", "batch": "open", "tables": "closed"}


@pytest.mark.full
@one_dialect
async def test_one_who_hangs_takes_no_answer_of_those_who_go_one_by_one(build: Build, front: SupabaseFront) -> None:
    """When the time of the batch ends, all but that one have their contexts."""
    front.disturb("hang", times=None, contains=BATCH_FUNCTION)
    front.disturb("hang", times=1, contains=ONE.removeprefix("rpc:"))
    async with build() as source:
        loading = Loading(source, context_type=UserContext, load_timeout=8.0)
        with anyio.fail_after(LONG / 2):
            found = await loading([Ask(Identity(email).cache_key, math.inf) for email in ASKED])
    assert [isinstance(each, Fetched) for each in found].count(False) == 1


async def _all_known(loading: Loading[UserContext], emails: Sequence[str]) -> None:
    found = await loading([Ask(Identity(email).cache_key, math.inf) for email in emails])
    assert all(isinstance(each, Fetched) and each.value for each in found)


@one_dialect
async def test_a_hung_server_is_not_asked_for_everybody(build: Build, front: SupabaseFront) -> None:
    """The call for many and as many as go at once are tried; then it is known, and soon nothing is tried at all."""
    asked = [f"nobody{number}@example.com" for number in range(100)]
    front.disturb("hang", times=None)
    async with build(pool=patient(read_timeout=0.2)) as source:
        _, errors, paths = await load(source, asked)
        assert len(errors) == 100
        assert paths["rpc"] == "open"
        await _all_were_counted(front)
        singles = front.counts().rpc(FUNCTION)
        assert singles < 2 * ONE_BY_ONE_AT_ONCE
        _, errors, _ = await load(source, asked)
    assert all(isinstance(error, SourceUnavailable) and error.outage for error in errors.values())
    await _all_were_counted(front)
    assert (len(errors), front.counts().kinds) == (100, {BATCH: 2, ONE: singles})


async def _all_were_counted(front: SupabaseFront) -> None:
    """Wait until the front has seen the end of all connections that were given up, and so what came by them."""
    await eventually_async(lambda: front.counts().connections == 0)


@one_dialect
async def test_a_server_that_hangs_after_a_good_time_is_not_asked_for_everybody(
    build: Build, front: SupabaseFront
) -> None:
    """The answers of a moment ago keep the way open, and still nobody waits for a hundred calls that hang."""
    asked = [f"nobody{number}@example.com" for number in range(100)]
    async with build(pool=patient(read_timeout=0.2)) as source:
        for _ in range(1000):
            await source._paths.through("rpc", _answers)
        front.disturb("hang", times=None)
        _, errors, paths = await load(source, asked)
    assert (len(errors), paths["rpc"]) == (100, "closed")
    await _all_were_counted(front)
    assert front.counts().rpc(FUNCTION) < 2 * ONE_BY_ONE_AT_ONCE


async def _answers() -> None:
    """Stand for a call that was answered."""


@newer_dialect
@one_loop
async def test_an_answer_too_large_is_had_in_parts(
    build: Build, front: SupabaseFront, project: SupabaseProject
) -> None:
    """What fills the memory for many does not for fewer."""
    padding = (
        f"answer := answer || jsonb_build_object('padding', repeat('x', {MAX_BODY // 10} * cardinality(p_emails)));"
    )
    with spoilt(project, padding):
        async with build() as source:
            answered, errors, paths = await load(source)
    assert (answered, errors) == (set(ASKED), {})
    assert set(paths.values()) == {"closed"}
    assert front.counts().kinds == {BATCH: 3}


@one_dialect
@pytest.mark.parametrize("action", ["cut", "drop"])
async def test_a_connection_lost_in_the_middle_costs_nobody_their_answer(
    build: Build, front: SupabaseFront, action: Action
) -> None:
    """Lost twice, the batch is asked for in halves; half an answer never becomes contexts."""
    front.disturb(action, times=2, contains=BATCH_FUNCTION, after=200)
    async with build() as source:
        answered, errors, _ = await load(source)
    assert (answered, errors) == (set(ASKED), {})
    assert front.counts().kinds == {BATCH: 4}


@newer_dialect
@one_loop
async def test_a_server_killed_under_a_batch_is_an_outage_until_it_is_back(
    build: Build, project: SupabaseProject, dialect: Dialect
) -> None:
    """Everybody is told so at once, nobody is taken for unknown, and the same source answers afterwards."""
    with project.front(dialect) as own:
        async with build(url=own.url) as source:
            own.disturb("hang")
            killed: list[dict[str, SourceError]] = []

            async def under_way() -> None:
                killed.append((await load(source))[1])

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(under_way)
                await eventually_async(lambda: own.counts().rpc(BATCH_FUNCTION) == 1)
                own.kill()
            [errors] = killed
            assert set(errors) == set(ASKED)
            assert all(isinstance(error, SourceUnavailable) and error.outage for error in errors.values())
            own.restart()
            assert (await load(source))[0] == set(ASKED)
