"""Zones through Google's real client out of a server that speaks BigQuery's REST API, in order and out of order."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from ctxmiddleware.errors import SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.model import Zone
from ctxmiddleware.zones.bigquery import BigQueryZones
from ctxmiddleware.zones.service import Backoff, ZonesService
from examples.servers.bigquery import BigQueryStandIn
from tests.backends import ASYNCIO, UVLOOP
from tests.matrix import in_full
from tests.waiting import eventually_async

from .conftest import DEADLINE

pytestmark = pytest.mark.anyio

# What happens in the client's thread does not depend on the loop that waits for it.
one_loop = pytest.mark.parametrize("anyio_backend", [ASYNCIO])
trio_in_full = pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP, in_full(("trio", {}), name="trio")])
# With further tries as good as left out, so that no test waits for them.
SCARCELY = 0.001


def zones_of(warehouse: BigQueryStandIn, table: str | None = "geo.zones", **options: Any) -> BigQueryZones:
    """Return zones out of this server, with a timeout that no healthy server reaches."""
    return BigQueryZones("demo", table, api_endpoint=warehouse.url, **{"timeout": DEADLINE, **options})


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Let sockets that were left open warn, and so fail, in the test that left them."""
    yield
    gc.collect()


async def test_all_pages_become_zones(warehouse: BigQueryStandIn) -> None:
    """One query reads all 25 rows, ten to a page, field by field."""
    before = warehouse.queries()
    zones = await zones_of(warehouse).fetch()
    assert warehouse.queries() == before + 1
    assert len(zones) == 25
    assert zones[24] == Zone(id="z24", name="Zone 24", region_code="R3")
    assert sorted({zone.id for zone in zones}) == [f"z{number:02}" for number in range(25)]


@pytest.mark.parametrize("table", ["geo.zones", "demo.geo.zones", "other-project.geo.zones"])
async def test_a_table_is_named_with_or_without_its_project(warehouse: BigQueryStandIn, table: str) -> None:
    """Both spellings reach the table, and dashes in a project need no quoting by the user."""
    assert len(await zones_of(warehouse, table).fetch()) == 25


async def test_a_query_may_stand_in_place_of_a_table(warehouse: BigQueryStandIn) -> None:
    """GoogleSQL of the user's own maps other columns to the three, and others are ignored."""
    warehouse.put("geo.areas", [{"number": 7, "title": "Harbour", "region": "R1"}])
    query = "SELECT CAST(number AS STRING) AS id, title AS name, region AS region_code, TRUE AS more FROM `geo.areas`"
    assert await zones_of(warehouse, None, query=query).fetch() == (Zone("7", "Harbour", "R1"),)


async def test_an_integer_id_is_written_in_decimal(warehouse: BigQueryStandIn) -> None:
    """Warehouses number their rows; such an id is the string of its digits."""
    warehouse.put("geo.numbered", [{"id": number, "name": "a zone", "region_code": "R1"} for number in (-1, 0, 2**62)])
    assert [zone.id for zone in await zones_of(warehouse, "geo.numbered").fetch()] == ["-1", "0", str(2**62)]


async def test_no_rows_are_no_zones(warehouse: BigQueryStandIn) -> None:
    """An empty result is an answer, as long as it has the columns."""
    assert await zones_of(warehouse, None, query="SELECT * FROM geo.zones WHERE FALSE").fetch() == ()


GOOD: dict[str, str | None] = {"id": "a", "name": "A", "region_code": "R1"}


@one_loop
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"id": None}, "geo.bad, row 12: id is NULL, and must be a STRING or an INT64"),
        ({"name": None}, "geo.bad, row 12: name is NULL, and must be a STRING"),
        ({"region_code": None}, "geo.bad, row 12: region_code is NULL, and must be a STRING"),
    ],
    ids=["id", "name", "region_code"],
)
async def test_a_row_with_a_null_is_left_out_and_named(
    warehouse: BigQueryStandIn, bad: dict[str, None], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other zones are there, on a later page too; one warning names table, row and field."""
    rows: list[dict[str, str | None]] = [*({**GOOD, "id": f"{number}"} for number in range(11)), {**GOOD, **bad}]
    warehouse.put("geo.bad", rows)
    zones = await zones_of(warehouse, "geo.bad").fetch()
    assert {zone.id for zone in zones} == {f"{number}" for number in range(11)}
    assert [record.message for record in caplog.records] == [
        f"1 of 12 rows of zones cannot be read and are left out: {message}"
    ]


@one_loop
async def test_many_bad_rows_are_one_warning(warehouse: BigQueryStandIn, caplog: pytest.LogCaptureFixture) -> None:
    """It counts them, and names the first ones."""
    warehouse.put("geo.bad", [*([{**GOOD, "name": None}] * 20), *({**GOOD, "id": f"{each}"} for each in range(180))])
    assert len(await zones_of(warehouse, "geo.bad").fetch()) == 180
    (record,) = caplog.records
    assert record.message.startswith("20 of 200 rows of zones cannot be read")
    assert record.message.count("name is NULL") == 5


@one_loop
@pytest.mark.parametrize(("good", "bad"), [(0, 2), (2, 3), (53, 6), (179, 21)])
async def test_a_table_of_many_bad_rows_is_an_error(warehouse: BigQueryStandIn, good: int, bad: int) -> None:
    """It is no table of zones, and the last good zones stay in force."""
    rows = [*([{**GOOD, "name": None}] * bad), *({**GOOD, "id": f"{each}"} for each in range(good))]
    warehouse.put("geo.bad", rows)
    with pytest.raises(SourceError, match=r"geo\.bad, row 1: name is NULL"):
        await zones_of(warehouse, "geo.bad").fetch()


@one_loop
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GOOD, "id": 1.5}, "geo.bad, row 1: id is of type float, and must be a STRING or an INT64"),
        ({**GOOD, "id": True}, "geo.bad, row 1: id is of type bool, and must be a STRING or an INT64"),
        ({**GOOD, "name": 1}, "geo.bad, row 1: name is of type int, and must be a STRING"),
        ({**GOOD, "region_code": 1}, "geo.bad, row 1: region_code is of type int, and must be a STRING"),
    ],
)
async def test_a_value_of_another_type_is_not_converted(
    warehouse: BigQueryStandIn, row: dict[str, str | float], message: str
) -> None:
    """A number where a text belongs is an error, not a text."""
    warehouse.put("geo.bad", [row])
    with pytest.raises(SourceError) as caught:
        await zones_of(warehouse, "geo.bad").fetch()
    assert str(caught.value) == message


async def test_a_missing_column_is_named(warehouse: BigQueryStandIn) -> None:
    """By the server for a table, and by us for a query, even one without rows."""
    warehouse.put("geo.bad", [{"id": "a", "title": "A", "region_code": "R1"}])
    with pytest.raises(SourceMisconfigured, match=r'geo\.bad: .*"name".*needs the columns id, name, region_code'):
        await zones_of(warehouse, "geo.bad").fetch()
    with pytest.raises(SourceError, match=r"the zones query has no column name: it has id, title, region_code"):
        await zones_of(warehouse, None, query="SELECT * FROM geo.bad WHERE FALSE").fetch()


@one_loop
@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"table": "geo.none"}, "Not found: Table demo:geo.none .*BIGQUERY_ZONES_TABLE"),
        ({"table": "none.zones"}, "Not found: Dataset demo:none .*BIGQUERY_ZONES_TABLE"),
        ({"table": "geo.zones", "location": "EU"}, "not found in location EU; .*BIGQUERY_LOCATION"),
        ({"table": None, "query": "SELECT FROM WHERE"}, "the zones query: 400 "),
    ],
    ids=["table", "dataset", "location", "syntax"],
)
async def test_what_an_operator_must_mend_is_told_with_the_way_out(
    warehouse: BigQueryStandIn, options: dict[str, Any], way_out: str
) -> None:
    """What the server itself refuses is a configuration error."""
    with pytest.raises(SourceMisconfigured, match=way_out):
        await zones_of(warehouse, **options).fetch()


@one_loop
@pytest.mark.parametrize(
    ("status", "reason", "kind", "way_out"),
    [
        (403, "accessDenied", SourceMisconfigured, "roles/bigquery.dataViewer"),
        (403, "billingNotEnabled", SourceMisconfigured, "enable billing"),
        (400, "bytesBilledLimitExceeded", SourceMisconfigured, "BIGQUERY_MAX_BYTES"),
        (403, "someNewReason", SourceMisconfigured, "rights of the account"),
        (404, "notFound", SourceMisconfigured, "BIGQUERY_PROJECT"),
        (401, "authError", SourceMisconfigured, "GOOGLE_APPLICATION_CREDENTIALS"),
        (403, "quotaExceeded", SourceUnavailable, "as it was told"),
        (403, "rateLimitExceeded", SourceUnavailable, "as it was told"),
        (400, "stopped", SourceUnavailable, "as it was told"),
        (500, "internalError", SourceUnavailable, "as it was told"),
        (503, "backendError", SourceUnavailable, "as it was told"),
        (504, "someNewReason", SourceUnavailable, "as it was told"),
        (429, "", SourceUnavailable, "as it was told"),
    ],
)
async def test_errors_are_told_apart_by_reason_and_then_by_status(
    warehouse: BigQueryStandIn, status: int, reason: str, kind: type[SourceError], way_out: str
) -> None:
    """What passes is unavailable, what an operator must mend is misconfigured, and an account's address stays out."""
    warehouse.fail(status, reason, "as it was told to bot@demo.iam.gserviceaccount.com", Retry_After="7")
    with pytest.raises(SourceError, match=way_out) as caught:
        await zones_of(warehouse, retry_share=SCARCELY).fetch()
    assert type(caught.value) is kind
    assert "@" not in f"{caught.value}{caught.value.__cause__}"
    assert caught.value.__suppress_context__
    if isinstance(caught.value, SourceUnavailable):
        assert caught.value.retry_after == 7.0


@one_loop
async def test_a_passing_fault_is_tried_again_at_once(warehouse: BigQueryStandIn) -> None:
    """One bad answer on the first or on a later page costs a moment, not the load."""
    for after in (0, 2):
        warehouse.fail(503, "backendError", "a moment please", times=1, after=after)
        assert len(await zones_of(warehouse).fetch()) == 25


@one_loop
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 502, "body": "<html>" + "x" * 5000, "content_type": "text/html"}, SourceUnavailable),
        ({"status": 503, "body": "bot@demo.example " * 60_000, "content_type": "text/html"}, SourceUnavailable),
        ({"status": 404, "body": "<html>no", "content_type": "text/html"}, SourceMisconfigured),
        ({"status": 200, "body": "<html>", "content_type": "text/html"}, SourceUnavailable),
        ({"status": 200, "body": ""}, SourceError),
        ({"status": 200, "body": "[]"}, SourceError),
        ({"status": 200, "body": '{"rows": 7, "jobComplete": true, "schema": {"fields": 7}}'}, SourceError),
        ({"status": 200, "body": '{"jobComplete":', "cut": True}, SourceUnavailable),
    ],
    ids=["gateway", "megabyte", "no-such-page", "page", "nothing", "list", "nonsense", "cut"],
)
async def test_garbage_is_an_error_of_ours(
    warehouse: BigQueryStandIn, fault: dict[str, Any], kind: type[SourceError]
) -> None:
    """Whatever comes back, the caller sees one of our errors, of bounded length."""
    warehouse.behave(fault={"times": 1000, **fault})
    with pytest.raises(SourceError) as caught:
        await zones_of(warehouse, retry_share=SCARCELY).fetch()
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 1000
    assert "@" not in str(caught.value)


@trio_in_full
@pytest.mark.parametrize("after", [0, 1, 2], ids=["query", "job", "page"])
async def test_a_hung_server_is_given_up_in_time(warehouse: BigQueryStandIn, after: int) -> None:
    """The timeout ends a load wherever the server hangs, though Google's client waits two minutes for a page."""
    warehouse.behave(fault={"times": 1000, "after": after, "hang": True})
    with anyio.fail_after(DEADLINE), pytest.raises(SourceUnavailable):
        await zones_of(warehouse, timeout=0.5).fetch()


@one_loop
async def test_a_stopped_server_is_given_up_in_time(warehouse: BigQueryStandIn) -> None:
    """A server whose process stands still keeps its port and answers nothing."""
    warehouse.pause()
    try:
        with anyio.fail_after(DEADLINE), pytest.raises(SourceUnavailable):
            await zones_of(warehouse, timeout=0.5).fetch()
    finally:
        warehouse.resume()


@trio_in_full
async def test_loads_that_never_end_are_not_piled_up(warehouse: BigQueryStandIn) -> None:
    """While four given-up loads still hang, a further one is refused at once; one that ends makes room."""
    warehouse.behave(fault={"times": 4, "after": 0, "hang": True})
    zones = zones_of(warehouse, timeout=10 * DEADLINE)

    def arrived(requests: int) -> bool:
        return warehouse.requests() >= requests

    for _ in range(4):
        before = warehouse.requests()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(zones.fetch)
            await eventually_async(partial(arrived, before + 1), DEADLINE)
            tasks.cancel_scope.cancel()
    with pytest.raises(SourceUnavailable, match=r"4 loads of geo.zones that were given up"):
        await zones.fetch()
    warehouse.kill()
    warehouse.restart()

    async def loaded() -> bool:
        try:
            return len(await zones.fetch()) == 25
        except SourceUnavailable:
            return False

    assert await eventually_async(loaded, DEADLINE)


@one_loop
async def test_a_slow_query_is_waited_for(warehouse: BigQueryStandIn) -> None:
    """A query that runs on after the first answer is awaited, and ended by its job's own limit when it is too slow."""
    warehouse.behave(query_ms=700)
    assert len(await zones_of(warehouse).fetch()) == 25
    warehouse.behave(query_ms=60_000)
    with anyio.fail_after(DEADLINE), pytest.raises(SourceUnavailable):
        await zones_of(warehouse, timeout=0.5).fetch()


async def test_a_cancelled_load_ends_at_once(warehouse: BigQueryStandIn) -> None:
    """A caller that is cancelled while the server hangs goes its way without waiting for the client."""
    warehouse.behave(fault={"times": 1000, "hang": True})
    with anyio.fail_after(DEADLINE), anyio.move_on_after(0.3) as scope:
        await zones_of(warehouse, timeout=10 * DEADLINE).fetch()
    assert scope.cancelled_caught


@one_loop
@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 200, "times": 0}], ids=["bad", "good"])
async def test_a_load_that_was_given_up_asks_no_more(fault: dict[str, Any]) -> None:
    """Its thread ends with the answer it waits for, good or bad: it neither tries again nor reads further pages."""
    rows = [{"id": str(number), "name": "a zone", "region_code": "R1"} for number in range(30)]
    before = set(threading.enumerate())

    def ended() -> bool:
        return not any(thread.name == "ctxmiddleware-zones" for thread in set(threading.enumerate()) - before)

    with BigQueryStandIn.start({"geo.zones": rows}, page_rows=10) as server:
        server.behave(delay_ms=200, fault={"times": 1000, **fault})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(zones_of(server, timeout=10 * DEADLINE).fetch)
            await eventually_async(lambda: server.requests() == 1, DEADLINE)
            tasks.cancel_scope.cancel()
        await eventually_async(ended, DEADLINE)
        # A good first page takes two more requests to reach its rows; the last page is not asked for.
        assert server.requests() <= (1 if fault["status"] == 503 else 3)


@trio_in_full
async def test_a_warehouse_that_dies_and_comes_back_costs_no_zones(warehouse: BigQueryStandIn) -> None:
    """Killed in the middle of a page it leaves the last snapshot in place, and the service recovers by itself."""
    service = ZonesService(zones_of(warehouse, timeout=1.0), ttl=0.05, backoff=Backoff(first=0.05, most=0.1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        with anyio.fail_after(4 * DEADLINE):
            await service.wait_loaded()
            warehouse.behave(fault={"times": 1000, "after": 2, "hang": True})
            await eventually_async(lambda: service.state().state == "failing", DEADLINE)
            warehouse.kill()
            failures = service.state().failures
            await eventually_async(lambda: service.state().failures >= failures + 2, DEADLINE)
            assert service.snapshot.count == 25
            warehouse.restart()
            await eventually_async(lambda: service.state().state == "ready", DEADLINE)
        tasks.cancel_scope.cancel()
    assert service.snapshot.count == 25


@one_loop
async def test_limits_of_cost_and_time_are_told_to_the_server(warehouse: BigQueryStandIn) -> None:
    """The smallest max_bytes is one the server accepts, and a job ends by itself where the client gives it up."""
    assert len(await zones_of(warehouse, max_bytes=10_485_760, timeout=7.0).fetch()) == 25
    sent = warehouse.last_query()
    assert (sent["maximumBytesBilled"], sent["jobTimeoutMs"]) == ("10485760", "7000")
    assert sent["query"] == "SELECT id, name, region_code FROM `geo.zones`"
