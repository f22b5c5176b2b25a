"""From a request to its context, over real PostgreSQL, PostgREST, Valkey and BigQuery's real client."""

from __future__ import annotations

import logging

import pytest
from asgi_lifespan import LifespanManager
from httpx2 import ASGITransport, AsyncClient

from ctxmiddleware import ContextPlugin
from examples.servers import SupabaseFront, SupabaseProject, Valkey
from examples.servers.bigquery import BigQueryStandIn

from ..backends import asyncio_only
from ..waiting import eventually_async
from .conftest import ADMIN, Environ, make_app, plugin_of, serve

pytestmark = [pytest.mark.anyio, asyncio_only]

ADA = {"X-User": "ada@example.com"}
BOB = {"X-User": "bob@example.com"}


async def test_a_miss_costs_one_call_and_a_hit_none(environ: Environ, front: SupabaseFront) -> None:
    """The whole context, zones included, for one request to the database, and none from then on."""
    async with serve(environ) as client:
        first = await client.get("/me", headers=ADA)
        assert first.json() == {
            "email": "ada@example.com",
            "title": "Lead",
            "regions": ["NORTH"],
            "zones": ["Harbour", "Old Town"],
        }
        assert front.counts().requests == 1
        for spelling in ("ada@example.com", " ADA@Example.Com"):
            assert (await client.get("/me", headers={"X-User": spelling})).json() == first.json()
        assert front.counts().requests == 1


async def test_the_rest_of_the_fleet_reads_redis(environ: Environ, front: SupabaseFront) -> None:
    """What one process has loaded costs the next none of the database."""
    async with serve(environ) as first, serve(environ) as second:
        loaded = await first.get("/me", headers=ADA)
        assert (await second.get("/me", headers=ADA)).json() == loaded.json()
        assert front.counts().requests == 1
        assert (await second.get("/api/admin/cache/stats", headers=ADMIN)).json()["resolutions"] == {"redis": 1}


async def test_an_invalidation_reaches_the_other_process(
    environ: Environ, front: SupabaseFront, project: SupabaseProject
) -> None:
    """After a change and an invalidation every process is right at once: each has confirmed it."""
    async with serve(environ) as first, serve(environ) as second:
        for client in (first, second):
            assert (await client.get("/me", headers=BOB)).json()["title"] is None
        project.execute("update hr.employees set job_title = 'Scout' where id = 2")
        try:
            report = (await first.post("/api/admin/cache/invalidate/Bob@Example.com", headers=ADMIN)).json()
            assert (report["reach"], report["redis"]) == ("fleet", "done")
            # This Redis was started a moment ago.
            assert report["others_stop_within"] == report["unlisted_stop_within"] > 60
            assert (len(report["confirmed"]), report["silent"]) == (2, [])
            for client in (first, second):
                assert (await client.get("/me", headers=BOB)).json()["title"] == "Scout"
        finally:
            project.execute("update hr.employees set job_title = null where id = 2")


async def test_a_lagging_replica_undoes_no_invalidation_in_the_fleet(
    environ: Environ, project: SupabaseProject, lagging_replica: SupabaseFront
) -> None:
    """After an invalidation by one process, another one loads from the primary until the replica can have caught up."""
    environ["SUPABASE_READ_URL"] = lagging_replica.url
    async with serve(environ) as first, serve(environ) as second:
        assert (await first.get("/me", headers=BOB)).json()["title"] is None
        project.execute("update hr.employees set job_title = 'Scout' where id = 2")
        try:
            await first.post("/api/admin/cache/invalidate/bob@example.com", headers=ADMIN)
            assert (await second.get("/me", headers=BOB)).json()["title"] == "Scout"
            assert (await first.get("/me", headers=BOB)).json()["title"] == "Scout"
        finally:
            project.execute("update hr.employees set job_title = null where id = 2")


async def test_clear_makes_everybody_load_again(environ: Environ, front: SupabaseFront) -> None:
    """After clear nothing that was known is served, from neither tier."""
    async with serve(environ) as client:
        for person in (ADA, BOB):
            await client.get("/me", headers=person)
        assert (await client.post("/api/admin/cache/clear", headers=ADMIN)).json()["memory"] == 2
        front.reset()
        for person in (ADA, BOB):
            assert (await client.get("/me", headers=person)).status_code == 200
        assert front.counts().requests == 2


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("nobody@example.com", 403), ("gone@example.com", 403)])
async def test_who_has_no_context_is_refused(environ: Environ, user: str | None, status: int) -> None:
    """Anonymous is 401, unknown and inactive are 403, where a context is required."""
    async with serve(environ) as client:
        answer = await client.get("/me", headers={} if user is None else {"X-User": user})
        assert answer.status_code == status


async def test_an_unknown_user_is_remembered_for_a_while(environ: Environ, front: SupabaseFront) -> None:
    """A stranger who knocks again and again costs the database one call."""
    async with serve(environ) as client:
        for _ in range(5):
            assert (await client.get("/me", headers={"X-User": "nobody@example.com"})).status_code == 403
        assert front.counts().requests == 1


async def test_everything_works_in_memory_without_redis(environ: Environ, front: SupabaseFront) -> None:
    """Without REDIS_URL the same answers cost the same single call."""
    del environ["REDIS_URL"]
    async with serve(environ) as client:
        for _ in range(3):
            assert (await client.get("/me", headers=ADA)).json()["zones"] == ["Harbour", "Old Town"]
        assert front.counts().requests == 1
        report = (await client.post("/api/admin/cache/clear", headers=ADMIN)).json()
        assert (report["reach"], report["redis"]) == ("this process only", "absent")


async def test_redis_may_die_and_come_back(environ: Environ, front: SupabaseFront) -> None:
    """While Redis is gone users are served from memory and the database, and an invalidation says that it failed."""
    with Valkey.start() as valkey:
        async with serve({**environ, "REDIS_URL": valkey.url}) as client:
            assert (await client.get("/me", headers=ADA)).status_code == 200
            valkey.kill()
            for person in (ADA, BOB):
                assert (await client.get("/me", headers=person)).status_code == 200
            refused = await client.post("/api/admin/cache/invalidate/ada@example.com", headers=ADMIN)
            assert (refused.status_code, refused.json()["report"]["redis"]) == (502, "failed")
            valkey.restart()

            async def is_up() -> bool:
                await client.get("/me", headers=ADA)
                stats = (await client.get("/api/admin/cache/stats", headers=ADMIN)).json()
                done = await client.post("/api/admin/cache/invalidate/ada@example.com", headers=ADMIN)
                return bool(stats["redis"]["state"] == "ok" and done.status_code == 200)

            await eventually_async(is_up)


async def test_the_database_may_die_while_users_are_known(environ: Environ, front: SupabaseFront) -> None:
    """With the source down known users are served, and unknown ones get a 503 that says when to come back."""
    async with serve(environ) as client:
        assert (await client.get("/me", headers=ADA)).status_code == 200
        front.fault(status=503, body={"code": "PGRST001", "message": "no connection"}, times=None)
        assert (await client.get("/me", headers=ADA)).status_code == 200
        refused = await client.get("/me", headers=BOB)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        front.reset()
        assert (await client.get("/me", headers=BOB)).status_code == 200


async def test_a_broken_installation_is_a_500_that_tells_the_caller_nothing(
    environ: Environ, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused key is in the log and not in the answer, and nobody becomes anonymous."""
    async with serve({**environ, "SUPABASE_KEY": "sb_secret_of_another_project"}) as client:
        answer = await client.get("/me", headers=ADA)
        assert answer.status_code == 500
        assert set(answer.json()) == {"type", "title", "status", "reason"}
    assert any(record.levelno >= logging.ERROR and "SUPABASE_KEY" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("status", "code"), [(401, "42501"), (403, "42501"), (401, "PGRST301"), (406, "PGRST106"), (404, "PGRST205")]
)
async def test_what_an_operator_must_mend_is_never_the_callers_fault(
    environ: Environ, front: SupabaseFront, caplog: pytest.LogCaptureFixture, status: int, code: str
) -> None:
    """A missing grant, an expired key, a schema that is not exposed: 500, the code in the log, and no word of either.

    What the database says of it, which may hold an address, is in neither.
    """
    async with serve(environ) as client:
        body = {"code": code, "message": "denied for ada@example.com", "details": "row (ada@example.com)"}
        front.fault(status=status, body=body, times=None)
        answer = await client.get("/me", headers=ADA)
        assert (answer.status_code, answer.json()["reason"]) == (500, "failed")
        assert code not in answer.text
        assert "denied" not in answer.text
    assert any(record.levelno >= logging.ERROR and code in record.getMessage() for record in caplog.records)
    assert "ada@example.com" not in caplog.text


async def test_no_request_waits_for_the_warehouse(environ: Environ, zones_server: BigQueryStandIn) -> None:
    """A warehouse that hangs delays neither the start nor an answer: zones are there when they are there."""
    zones_server.behave(fault={"times": 1000, "hang": True})
    del environ["REDIS_URL"]
    plugin = ContextPlugin.from_env(environ)
    async with LifespanManager(make_app(plugin), startup_timeout=30) as manager:
        async with AsyncClient(transport=ASGITransport(app=manager.app), base_url="http://app") as client:
            assert (await client.get("/me", headers=ADA)).json()["zones"] == []
            zones = (await client.get("/api/admin/cache/stats", headers=ADMIN)).json()["zones"]
            assert (zones["state"], zones["count"]) == ("loading", 0)
        zones_server.behave()


async def test_stats_tell_tiers_and_origins(environ: Environ) -> None:
    """The admin shows where answers came from, what the tiers hold, and whose process it is."""
    async with serve(environ) as client:
        for _ in range(4):
            await client.get("/me", headers=ADA)
        stats = (await client.get("/api/admin/cache/stats", headers=ADMIN)).json()
        assert stats["resolutions"] == {"memory": 3, "rpc": 1}
        assert stats["hit_rate"] == 0.75
        assert (stats["memory"]["hits"], stats["memory"]["misses"], stats["memory"]["entries"]) == (3, 1, 1)
        assert 500 < stats["memory"]["bytes"] < 20_000
        assert (stats["redis"]["hits"], stats["redis"]["misses"], stats["redis"]["state"]) == (0, 1, "ok")
        assert stats["zones"] == {**stats["zones"], "state": "ready", "count": 3}
        assert stats["pid"] > 0
        assert stats["started_at"].endswith("+00:00")


async def test_no_message_holds_an_address(environ: Environ, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever we log, at whatever level, names nobody."""
    caplog.set_level(logging.DEBUG)
    async with serve(environ) as client:
        for user in ("ada@example.com", "nobody@example.com"):
            await client.get("/me", headers={"X-User": user})
        await client.post("/api/admin/cache/invalidate/ada@example.com", headers=ADMIN)
    ours = [record for record in caplog.records if record.name.startswith("ctxmiddleware")]
    assert ours
    assert not [record for record in ours if "example.com" in f"{record.getMessage()} {record.__dict__}"]


async def test_after_a_deploy_the_hot_ones_are_in_memory(environ: Environ, front: SupabaseFront) -> None:
    """A process that begins answers those whom the fleet was asked for without asking anybody."""
    async with plugin_of(environ) as old:
        for email in (ADA["X-User"], BOB["X-User"]):
            await old.resolve(email)
            await old.resolve(email)
        warming = old._assembly.cache.warming
        assert warming is not None
        await warming.remember()
        front.reset()
        async with plugin_of(environ) as new:
            await eventually_async(lambda: new.stats().loads.warmed == 2)
            assert [(await new.resolve(email)).origin for email in (ADA["X-User"], BOB["X-User"])] == ["memory"] * 2
            assert new.stats().hit_rate == 1.0
        assert front.counts().requests == 0
