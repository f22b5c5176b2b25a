"""What the admin answers to whoever is let in."""

from __future__ import annotations

import os
from datetime import datetime
from urllib.parse import quote

import msgspec
import pytest

from ctxmiddleware import BearerToken, ContextPlugin, InvalidationFailed, InvalidationReport, UserContext
from ctxmiddleware.admin.app import AdminApp
from ctxmiddleware.testing import StaticSource

from ..asgi import Answer, ask, http_scope
from ..people import ADA, BOB, GONE, NOBODY, TOKEN, known, plugin_of

pytestmark = pytest.mark.anyio

AUTHORIZED = [(b"authorization", f"Bearer {TOKEN}".encode())]


@pytest.fixture
def source() -> StaticSource[UserContext]:
    """A source of these people."""
    return StaticSource(known())


@pytest.fixture
def plugin(source: StaticSource[UserContext]) -> ContextPlugin[UserContext]:
    """A plugin with a guarded admin."""
    return plugin_of(source, admin_guard=BearerToken(TOKEN))


async def get(plugin: ContextPlugin[UserContext], path: str, method: str = "GET") -> Answer:
    """Ask the plugin's admin with the token."""
    return await ask(plugin.admin, http_scope(path, method=method, headers=AUTHORIZED))


async def test_stats_are_this_processs_counters(plugin: ContextPlugin[UserContext]) -> None:
    """Hits, misses and rates by tier and origin, entries, bytes, pid and start are told as JSON nobody may keep."""
    for email in (ADA, ADA, ADA, BOB, NOBODY):
        await plugin.resolve(email)
    answer = await get(plugin, "/stats")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    stats = answer.json()
    assert stats == msgspec.to_builtins(plugin.stats())
    assert stats["pid"] == os.getpid()
    assert datetime.fromisoformat(stats["started_at"]).tzinfo is not None
    assert stats["resolutions"] == {"memory": 2, "static": 3}
    assert stats["hit_rate"] == pytest.approx(2 / 5)
    assert (stats["memory"]["hits"], stats["memory"]["misses"], stats["memory"]["entries"]) == (2, 3, 3)
    assert stats["memory"]["bytes"] > 0
    assert (stats["redis"], stats["zones"]) == (None, None)
    assert ADA not in answer.body.decode()


async def test_invalidating_one_user_loads_that_one_again(
    plugin: ContextPlugin[UserContext], source: StaticSource[UserContext]
) -> None:
    """The report says what was forgotten, and only that user costs another load."""
    for email in (ADA, BOB):
        await plugin.resolve(email)
    answer = await get(plugin, "/invalidate/Ada@Example.com", "POST")
    assert answer.status == 200
    report = msgspec.convert(answer.json(), InvalidationReport)
    assert (report.memory, report.redis, report.reach) == (1, "absent", "this process only")
    for email in (ADA, BOB):
        await plugin.resolve(email)
    assert source.calls == [ADA, BOB, ADA]


async def test_clearing_loads_everybody_again(
    plugin: ContextPlugin[UserContext], source: StaticSource[UserContext]
) -> None:
    """All are forgotten, and the report counts them."""
    for email in (ADA, BOB, GONE):
        await plugin.resolve(email)
    answer = await get(plugin, "/clear", "POST")
    assert (answer.status, answer.json()["memory"]) == (200, 3)
    await plugin.resolve(ADA)
    assert source.calls == [ADA, BOB, GONE, ADA]


@pytest.mark.parametrize(
    "email",
    [
        "a/b@example.com",
        "a+b%c@example.com",
        "o'hara@example.com",
        "\u0130@example.com",
        "a?b#c@example.com",
        "a\nb\r@example.com",
    ],
)
async def test_odd_addresses_reach_the_cache_whole(email: str) -> None:
    """An address arrives percent-decoded by the host, slashes and all."""
    source = StaticSource[UserContext]({})
    plugin = plugin_of(source, admin_guard=BearerToken(TOKEN))
    await plugin.resolve(email)
    scope = http_scope(f"/invalidate/{email}", method="POST", headers=AUTHORIZED, raw_path=quote(email).encode())
    assert (await ask(plugin.admin, scope)).json()["memory"] == 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/stats/"), ("POST", "/clear/"), ("POST", f"/invalidate/{ADA}/")])
async def test_a_slash_at_the_end_changes_nothing(plugin: ContextPlugin[UserContext], method: str, path: str) -> None:
    """Frameworks that end the paths of mounted apps with a slash reach the same."""
    await plugin.resolve(ADA)
    answer = await get(plugin, path, method)
    assert answer.status == 200
    assert plugin.stats().memory.entries == (1 if method == "GET" else 0)


@pytest.mark.parametrize("path", ["/invalidate/", "/invalidate/ ", "/invalidate/\t"])
async def test_no_address_is_a_bad_request(plugin: ContextPlugin[UserContext], path: str) -> None:
    """Forgetting nobody is a mistake of the caller's, and forgets nobody."""
    await plugin.resolve(ADA)
    answer = await get(plugin, path, "POST")
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert plugin.stats().memory.entries == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/clear", 405),
        ("GET", f"/invalidate/{ADA}", 405),
        ("DELETE", "/stats", 405),
        ("POST", "/stats", 405),
        ("GET", "/", 404),
        ("GET", "/stats//", 404),
        ("GET", "/nope", 404),
        ("POST", "/invalidate", 404),
    ],
)
async def test_what_is_not_there_is_told_as_problem_details(
    plugin: ContextPlugin[UserContext], method: str, path: str, status: int
) -> None:
    """Other paths and methods change nothing and are answered in the form of all errors."""
    await plugin.resolve(ADA)
    answer = await get(plugin, path, method)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["title"] == {404: "Not Found", 405: "Method Not Allowed"}[status]
    assert ("allow" in answer.headers) == (status == 405)
    assert plugin.stats().memory.entries == 1


async def test_head_is_a_get_without_its_body(plugin: ContextPlugin[UserContext]) -> None:
    """A probe with HEAD finds the statistics there."""
    assert (await get(plugin, "/stats", "HEAD")).status == 200


class Unreachable:
    """Operations whose Redis cannot be told."""

    report = InvalidationReport(
        reach="fleet", memory=1, redis="failed", confirmed=(), others_stop_within=None, duration_ms=1.0
    )

    def stats(self) -> object:
        return None

    async def invalidate(self, email: str) -> object:
        raise InvalidationFailed(self.report)

    async def clear(self) -> object:
        raise InvalidationFailed(self.report)


@pytest.mark.parametrize("path", ["/clear", f"/invalidate/{ADA}"])
async def test_an_invalidation_that_did_not_reach_redis_is_loud(path: str) -> None:
    """The caller is told that others may still serve the old, with the report of what was reached."""
    admin = AdminApp(Unreachable(), BearerToken(TOKEN))
    answer = await ask(admin, http_scope(path, method="POST", headers=AUTHORIZED))
    assert (answer.status, answer.headers["content-type"]) == (502, "application/problem+json")
    assert answer.json()["detail"].startswith("Redis could not be told")
    assert msgspec.convert(answer.json()["report"], InvalidationReport) == Unreachable.report


async def test_a_failure_inside_is_the_hosts_to_answer() -> None:
    """What nobody foresaw is raised, so that the application's own handler logs and answers it."""

    class Broken(Unreachable):
        def stats(self) -> object:
            raise ZeroDivisionError

    admin = AdminApp(Broken(), BearerToken(TOKEN))
    with pytest.raises(ZeroDivisionError):
        await ask(admin, http_scope("/stats", headers=AUTHORIZED))
