"""How often the other side is asked when it fails, counted there."""

from __future__ import annotations

import random
import tracemalloc
from email.utils import formatdate
from functools import partial

import anyio
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.errors import SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.sources.postgrest import FUNCTION
from examples.servers import SupabaseFront
from examples.servers.supabase.faults import Action

from ..matrix import Cases
from ..waiting import eventually_async
from .conftest import ADA, LONG, Build, Clock, Pauses, answered, one_dialect, patient, trio_in_full

pytestmark = [pytest.mark.anyio, one_dialect]

PAGE = "<html><body>502 Bad Gateway</body></html>"


async def outcome_of(build: Build, **options: object) -> object:
    """Load one user, for less time than a server that hangs is given; return the context or the error."""
    async with build(**options) as source:
        with anyio.fail_after(LONG / 2):
            try:
                return (await source.fetch(Identity(ADA))).value
            except SourceError as error:
                return error


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520])
async def test_one_passing_fault_is_not_seen(build: Build, front: SupabaseFront, status: int) -> None:
    """A gateway's page is followed by one more try, and the caller has its context."""
    front.fault(status=status, body=PAGE, headers={"content-type": "text/html"})
    outcome = await outcome_of(build)
    assert not isinstance(outcome, Exception)
    assert front.counts().rpc(FUNCTION) == 2


@trio_in_full
@pytest.mark.parametrize(
    ("status", "body"),
    [(429, ""), (503, PAGE), (500, {"code": "57014"}), (503, {"code": "PGRST001"}), (500, {"code": "40001"})],
)
async def test_two_passing_faults_are_an_outage(
    build: Build, front: SupabaseFront, status: int, body: str | dict[str, object]
) -> None:
    """There is one retry and never a second."""
    front.fault(status=status, body=body, times=None)
    outcome = await outcome_of(build)
    assert isinstance(outcome, SourceUnavailable)
    assert front.counts().requests == 2


@trio_in_full
@pytest.mark.parametrize("code", ["", "57P01"])
async def test_a_lost_database_connection_is_not_seen(build: Build, front: SupabaseFront, code: str) -> None:
    """What the API says once, with status 400, of a database connection that was cut is followed by one more try."""
    front.fault(status=400, body={"code": code, "message": "", "details": None, "hint": None})
    outcome = await outcome_of(build)
    assert not isinstance(outcome, Exception)
    assert front.counts().rpc(FUNCTION) == 2


@trio_in_full
@pytest.mark.parametrize("status", [400, 401, 403, 404, 406])
async def test_other_faults_are_not_repeated(build: Build, front: SupabaseFront, status: int) -> None:
    """What another try cannot mend is asked once."""
    front.fault(status=status, body=PAGE, times=None)
    outcome = await outcome_of(build)
    assert isinstance(outcome, SourceError)
    assert not isinstance(outcome, SourceUnavailable)
    assert front.counts().requests == 1


@trio_in_full
async def test_a_short_retry_after_is_waited_for(build: Build, front: SupabaseFront) -> None:
    """A server that asks for a second gets it, and then answers."""
    waited: list[tuple[float, int]] = []

    async def wait(seconds: float) -> None:
        waited.append((seconds, front.counts().requests))
        await anyio.lowlevel.checkpoint()

    front.fault(status=503, headers={"retry-after": "1"})
    outcome = await outcome_of(build, sleep=wait)
    assert not isinstance(outcome, Exception)
    [(seconds, requests)] = waited
    assert 1.05 <= seconds <= 1.15
    assert (requests, front.counts().requests) == (1, 2)


async def test_without_another_clock_a_pause_takes_its_time(build: Build, front: SupabaseFront) -> None:
    """The pause before a retry is a real one unless another is given."""
    front.fault(status=503)
    began = anyio.current_time()
    assert not isinstance(await outcome_of(build, sleep=anyio.sleep), Exception)
    assert anyio.current_time() - began >= 0.049  # uvloop counts whole milliseconds


@trio_in_full
@pytest.mark.parametrize("form", ["30", "date", "999999999"])
async def test_a_long_retry_after_is_passed_on(build: Build, front: SupabaseFront, pauses: Pauses, form: str) -> None:
    """No request waits for half a minute: the error comes at once instead, with the time."""
    now = 1_800_000_000.0
    front.fault(status=429, headers={"retry-after": formatdate(now + 30, usegmt=True) if form == "date" else form})
    outcome = await outcome_of(build, wall_clock=lambda: now)
    assert isinstance(outcome, SourceUnavailable)
    assert outcome.retry_after == {"30": 30.0, "date": 30.0, "999999999": 3600.0}[form]
    assert pauses.noted == []
    assert front.counts().requests == 1


@pytest.mark.parametrize("action", ["drop", "cut"])
async def test_a_lost_connection_is_repeated_once(build: Build, front: SupabaseFront, action: Action) -> None:
    """A reply that never came, or came by half, is asked for again; the function only reads."""
    front.disturb(action, after=20)
    outcome = await outcome_of(build)
    assert not isinstance(outcome, Exception)
    assert front.counts().rpc(FUNCTION) == 2


@pytest.mark.parametrize("action", ["drop", "cut"])
async def test_a_connection_lost_twice_is_an_outage(build: Build, front: SupabaseFront, action: Action) -> None:
    """Half an answer never becomes a context."""
    front.disturb(action, times=None, after=20)
    outcome = await outcome_of(build)
    assert isinstance(outcome, SourceUnavailable)
    assert front.counts().rpc(FUNCTION) == 2


async def test_a_hanging_server_is_given_up(build: Build, front: SupabaseFront) -> None:
    """Silence ends with the read timeout and is not repeated: the server is too slow already."""
    front.disturb("hang", times=None)
    outcome = await outcome_of(build, pool=patient(read_timeout=0.3))
    assert isinstance(outcome, SourceUnavailable)
    assert "no answer within 0.3 s" in str(outcome)
    assert front.counts().requests == 1


async def test_a_paused_server_is_given_up(build: Build, front: SupabaseFront, clock: Clock) -> None:
    """A process that is stopped accepts connections through its kernel and says nothing."""
    async with build(pool=patient(read_timeout=0.3)) as source:
        front.pause()
        try:
            with pytest.raises(SourceUnavailable, match=r"0\.3 s"):
                await source.fetch(Identity(ADA))
        finally:
            front.resume()
        await eventually_async(partial(answered, source, clock))


@trio_in_full
@pytest.mark.usefixtures("without_function")
async def test_a_load_by_tables_has_one_retry_in_all(build: Build, front: SupabaseFront) -> None:
    """Four requests share one retry: the first fault is repeated, the second ends the load."""
    front.fault(status=503, contains="employees")
    assert not isinstance(await outcome_of(build), Exception)
    assert front.counts().requests == 6
    front.reset()
    front.fault(status=503, contains="employees")
    front.fault(status=503, contains="regions")
    assert isinstance(await outcome_of(build), SourceUnavailable)
    assert front.counts().requests == 6


@trio_in_full
@pytest.mark.usefixtures("without_function")
@pytest.mark.parametrize(("times", "reads"), [(1, 2), (None, 2)])
async def test_a_row_that_vanished_is_read_again(
    build: Build, front: SupabaseFront, times: int | None, reads: int
) -> None:
    """Rows may change between two requests: the whole read is repeated once, and then it is an error."""
    front.fault(status=200, headers={"content-range": "*/0"}, body="[]", contains="regions", times=times)
    outcome = await outcome_of(build)
    assert isinstance(outcome, SourceError) is (times is None)
    assert front.counts().table("employees") == reads
    if isinstance(outcome, SourceError):
        assert str(outcome).startswith("slots.region_id: ")


@trio_in_full
@pytest.mark.usefixtures("without_function")
async def test_a_server_that_ignores_the_filter_is_not_asked_for_ever(build: Build, front: SupabaseFront) -> None:
    """The same page again and again is an error after the second one."""
    page = '[{"id":1,"employee_id":1,"slot_id":1,"is_primary":true,"starts_on":"2026-01-01","ends_on":null}]'
    front.fault(status=206, headers={"content-range": "0-0/9"}, body=page, contains="assignments", times=None)
    outcome = await outcome_of(build)
    assert isinstance(outcome, SourceError)
    assert "ordered by id" in str(outcome)
    assert front.counts().table("assignments") == 2


async def test_an_endless_answer_is_refused(build: Build, front: SupabaseFront) -> None:
    """An answer beyond all measure is given up before it fills the memory."""
    front.fault(status=200, body="[" * (17 * 1024 * 1024))
    outcome = await outcome_of(build)
    assert isinstance(outcome, SourceError)
    assert "larger than" in str(outcome)


@trio_in_full
async def test_a_redirect_is_not_followed(build: Build, front: SupabaseFront) -> None:
    """A redirect would carry the key elsewhere: it is a configuration error."""
    front.fault(status=308, headers={"location": front.url})
    outcome = await outcome_of(build)
    assert isinstance(outcome, SourceMisconfigured)
    assert front.counts().requests == 1


@trio_in_full
async def test_the_replica_is_asked_first_by_get(build: Build, front: SupabaseFront, replica: SupabaseFront) -> None:
    """With a replica the primary sees no request, and the replica none that it would refuse."""
    async with build(read_url=replica.url) as source:
        assert (await source.fetch(Identity(ADA))).value is not None
        assert (await source.fetch(Identity("o'hara+news@example.com"))).value is not None
    assert replica.counts().rpc(FUNCTION) == 2
    assert front.counts().requests == 0


@trio_in_full
@pytest.mark.usefixtures("without_function")
async def test_the_tables_are_read_from_the_replica(build: Build, front: SupabaseFront, replica: SupabaseFront) -> None:
    """The table queries go to the replica too."""
    async with build(read_url=replica.url) as source:
        assert (await source.fetch(Identity(ADA))).origin == "legacy"
    assert replica.counts().requests == 5
    assert front.counts().requests == 0


@trio_in_full
@pytest.mark.parametrize("fault", ["status", "drop", "hang"])
async def test_a_failing_replica_is_replaced_by_the_primary(
    build: Build, front: SupabaseFront, replica: SupabaseFront, pauses: Pauses, fault: str
) -> None:
    """One fault of the replica, a silent one too, sends the load to the primary without a pause."""
    if fault == "status":
        replica.fault(status=503, headers={"retry-after": "60"}, times=None)
    else:
        replica.disturb("drop" if fault == "drop" else "hang", times=None)
    # The primary has the same time to answer that the replica takes in vain.
    limits = patient(read_timeout=2.0) if fault == "hang" else patient()
    outcome = await outcome_of(build, read_url=replica.url, pool=limits)
    assert not isinstance(outcome, Exception)
    assert pauses.noted == []
    assert replica.counts().requests == 1
    assert front.counts().rpc(FUNCTION) == 1


@trio_in_full
@pytest.mark.usefixtures("without_function")
async def test_after_a_fault_the_tables_come_from_the_primary(
    build: Build, front: SupabaseFront, replica: SupabaseFront
) -> None:
    """A load that left the replica does not go back to it."""
    replica.fault(status=503, contains="assignments")
    outcome = await outcome_of(build, read_url=replica.url)
    assert not isinstance(outcome, Exception)
    assert replica.counts().kinds == {f"rpc:{FUNCTION}": 1, "table:employees": 1, "table:assignments": 1}
    assert front.counts().kinds == {"table:assignments": 1, "table:slots": 1, "table:regions": 1}


@trio_in_full
async def test_both_servers_down_are_two_requests(build: Build, front: SupabaseFront, replica: SupabaseFront) -> None:
    """The change to the primary is the one retry."""
    replica.fault(status=503, times=None)
    front.fault(status=503, times=None)
    outcome = await outcome_of(build, read_url=replica.url)
    assert isinstance(outcome, SourceUnavailable)
    assert (replica.counts().requests, front.counts().requests) == (1, 1)


@trio_in_full
async def test_an_invalidated_user_is_loaded_from_the_primary(
    build: Build, front: SupabaseFront, replica: SupabaseFront, clock: Clock
) -> None:
    """For the replica's lag the invalidated user, in any spelling, is asked for at the primary, and nobody else."""
    async with build(read_url=replica.url, replica_lag=10.0) as source:
        source.invalidated(Identity(" ADA@example.com "))
        await source.fetch(Identity(ADA))
        await source.fetch(Identity("idle@example.com"))
        assert (replica.counts().requests, front.counts().requests) == (1, 1)
        clock.now += 9.9
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (1, 2)
        clock.now += 0.1
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (2, 2)


@trio_in_full
async def test_only_the_rest_of_the_lag_counts_for_what_happened_elsewhere(
    build: Build, front: SupabaseFront, replica: SupabaseFront, clock: Clock
) -> None:
    """An invalidation some seconds ago is covered for as much less, one longer ago than the lag for nothing."""
    async with build(read_url=replica.url, replica_lag=10.0) as source:
        for ago in (10.0, 11.0, float("inf")):
            source.invalidated(Identity(ADA), ago=ago)
            source.invalidated(None, ago=ago)
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (1, 0)
        source.invalidated(Identity(ADA), ago=6.0)
        source.invalidated(Identity("idle@example.com"), ago=-60.0)  # a clock elsewhere may be ahead
        clock.now += 3.9
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (1, 1)
        clock.now += 0.2
        await source.fetch(Identity(ADA))
        await source.fetch(Identity("idle@example.com"))
        assert (replica.counts().requests, front.counts().requests) == (2, 2)
        clock.now += 6.0
        await source.fetch(Identity("idle@example.com"))
        assert (replica.counts().requests, front.counts().requests) == (3, 2)


@trio_in_full
@pytest.mark.parametrize("again", [ADA, None])
@pytest.mark.parametrize("first", [ADA, None])
async def test_an_older_invalidation_shortens_no_later_one(
    build: Build, front: SupabaseFront, replica: SupabaseFront, clock: Clock, first: str | None, again: str | None
) -> None:
    """What is heard late of an earlier invalidation leaves the time a later one has got."""
    async with build(read_url=replica.url, replica_lag=10.0) as source:
        source.invalidated(None if first is None else Identity(first))
        source.invalidated(None if again is None else Identity(again), ago=9.0)
        clock.now += 9.9
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (0, 1)
        clock.now += 0.1
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (1, 1)


@trio_in_full
async def test_what_is_remembered_of_invalidations_is_bounded(
    build: Build, front: SupabaseFront, replica: SupabaseFront, clock: Clock, cases: Cases
) -> None:
    """Neither many users, nor the same again and again, nor kilobytes in the place of an address stay in memory."""
    async with build(read_url=replica.url, replica_lag=10.0) as source:
        tracemalloc.start()
        try:
            for number in range(50_000 if cases is Cases.FULL else 25_000):
                source.invalidated(Identity(f"{number}@example.com"), ago=number % 10)
                source.invalidated(Identity(ADA), ago=number % 10)
                clock.now += 0.0001
            for number in range(1_000 if cases is Cases.FULL else 100):
                source.invalidated(Identity(f"{number}@" + "x" * 100_000))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Ten thousand addresses take 1.1 MB.
        assert most < 2_500_000
        clock.now += 10.0
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (1, 0)


@trio_in_full
async def test_after_a_clear_everybody_is_loaded_from_the_primary(
    build: Build, front: SupabaseFront, replica: SupabaseFront, clock: Clock
) -> None:
    """An invalidation of everybody, and one too many to remember, sends all loads to the primary for the lag."""
    async with build(read_url=replica.url, replica_lag=10.0) as source:
        source.invalidated(None)
        await source.fetch(Identity(ADA))
        clock.now += 10.0
        for number in range(10_001):
            source.invalidated(Identity(f"{number}@example.com"))
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (0, 2)
        clock.now += 10.0
        await source.fetch(Identity(ADA))
        assert (replica.counts().requests, front.counts().requests) == (1, 2)


@trio_in_full
async def test_pauses_are_scattered(build: Build, front: SupabaseFront, pauses: Pauses) -> None:
    """The pause before a retry follows the given randomness."""

    class Long(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return 0.5

    front.fault(status=503)
    assert not isinstance(await outcome_of(build, rng=Long()), Exception)
    assert pauses.noted == [0.5]
