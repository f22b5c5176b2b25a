"""What the admin answers to whoever is let in."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from urllib.parse import quote

import anyio
import anyio.lowlevel
import msgspec
import pytest
from starlette.types import Message

from ctxmiddleware import BearerToken, ContextPlugin, Identity, InvalidationFailed, InvalidationReport, UserContext
from ctxmiddleware.admin.api import MAX_BODY
from ctxmiddleware.admin.app import AdminApp
from ctxmiddleware.pseudonym import Pseudonyms
from ctxmiddleware.testing import StaticSource

from ..asgi import Answer, ask, http_scope
from ..people import ADA, BOB, GONE, NOBODY, TOKEN, known, plugin_of

pytestmark = pytest.mark.anyio

LOG_KEY = "a key for the logs"
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
    assert [each.name for each in source.calls] == [ADA, BOB, ADA]


async def test_clearing_loads_everybody_again(
    plugin: ContextPlugin[UserContext], source: StaticSource[UserContext]
) -> None:
    """All are forgotten, and the report counts them."""
    for email in (ADA, BOB, GONE):
        await plugin.resolve(email)
    answer = await get(plugin, "/clear", "POST")
    assert (answer.status, answer.json()["memory"]) == (200, 3)
    await plugin.resolve(ADA)
    assert [each.name for each in source.calls] == [ADA, BOB, GONE, ADA]


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


@pytest.mark.parametrize("path", ["/invalidate//", "/invalidate/ ", "/invalidate/\t", "/invalidate/ada\ud800"])
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
        ("GET", "/invalidate", 405),
        ("PUT", "/invalidate", 405),
        ("POST", "/invalidate//", 400),
        ("POST", "/invalidated", 404),
    ],
)
async def test_what_is_not_there_is_told_as_problem_details(
    plugin: ContextPlugin[UserContext], method: str, path: str, status: int
) -> None:
    """Other paths and methods change nothing and are answered in the form of all errors."""
    await plugin.resolve(ADA)
    answer = await get(plugin, path, method)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["title"] == HTTPStatus(status).phrase
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

    async def invalidate(self, users: Identity | Sequence[Identity], *, or_clear: bool = False) -> object:
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


async def post(
    plugin: ContextPlugin[UserContext], *pieces: bytes, path: str = "/invalidate", query: bytes = b""
) -> Answer:
    """Post a body in pieces, with the token."""
    messages: list[Message] = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
    return await sent(plugin, messages, path, query)


async def sent(
    plugin: ContextPlugin[UserContext], messages: Sequence[Message], path: str = "/invalidate", query: bytes = b""
) -> Answer:
    """Send messages to the admin, with the token, and the end of the body."""
    left = [*messages, {"type": "http.request", "body": b"", "more_body": False}]
    answer = Answer()

    async def receive() -> Message:
        return left.pop(0)

    scope = {**http_scope(path, method="POST", headers=AUTHORIZED), "query_string": query}
    await plugin.admin(scope, receive, answer.send)
    return answer


USERS = [Identity(text, tenant=tenant) for text in (ADA, BOB) for tenant in ("", "acme")]
USERS += [Identity(subject=text, tenant=tenant) for text in (ADA, "aB3", "Ab3") for tenant in ("", "acme")]


@pytest.mark.parametrize("path", ["/invalidate", "/invalidate/"])
@pytest.mark.parametrize(
    ("body", "forgotten"),
    [
        ({"email": ADA}, ("email", ADA)),
        ({"email": f" {ADA.upper()}\t"}, ("email", ADA)),
        ({"email": ADA, "tenant": "acme"}, ("email", ADA)),
        ({"subject": "aB3"}, ("subject", "aB3")),
        ({"subject": "aB3", "tenant": "acme"}, ("subject", "aB3")),
        ({"subject": ADA, "tenant": "no such tenant"}, ("subject", ADA)),
        ({"tenant": "", "subject": "a/b"}, None),
    ],
    ids=str,
)
async def test_the_user_in_a_body_is_forgotten(
    plugin: ContextPlugin[UserContext], body: dict[str, str], forgotten: tuple[str, str] | None, path: str
) -> None:
    """In every tenant, and no user of the other kind or of another subject."""
    for identity in USERS:
        await plugin.resolve(identity)
    answer = await post(plugin, json.dumps(body).encode(), path=path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    gone = [each for each in USERS if plugin.peek(each) is None]
    assert gone == [each for each in USERS if (each.key, each.name) == forgotten]
    assert answer.json()["memory"] == len(gone)


async def test_users_in_a_list_are_forgotten_together(plugin: ContextPlugin[UserContext]) -> None:
    """One report of all of them, each named as a single one is."""
    for identity in USERS:
        await plugin.resolve(identity)
    answer = await post(plugin, json.dumps([{"email": ADA}, {"subject": "aB3"}, {"email": ADA.upper()}]).encode())
    gone = [(each.key, each.name) for each in USERS if plugin.peek(each) is None]
    assert set(gone) == {("email", ADA), ("subject", "aB3")}
    assert (answer.status, answer.json()["memory"], answer.json()["was_known"]) == (200, 4, True)


async def test_a_list_that_is_too_long_is_cleared_only_where_that_is_said(plugin: ContextPlugin[UserContext]) -> None:
    """`or_clear` is true or false; nothing is forgotten of a list that is refused."""
    await plugin.resolve(ADA)
    body = json.dumps([{"email": f"user{number}@example.com"} for number in range(1001)]).encode()
    for query in (b"", b"or_clear=false", b"or_clear=yes", b"or_clear=true&or_clear=true"):
        answer = await post(plugin, body, query=query)
        assert (answer.status, plugin.peek(Identity(ADA)) is None) == (400, False)
        assert "or_clear" in answer.json()["detail"]
    answer = await post(plugin, body, query=b"or_clear=true")
    assert (answer.status, plugin.peek(Identity(ADA))) == (200, None)


async def test_a_body_may_come_in_pieces(plugin: ContextPlugin[UserContext]) -> None:
    """One byte at a time."""
    await plugin.resolve(ADA)
    answer = await post(plugin, *(bytes([each]) for each in json.dumps({"email": ADA}).encode()))
    assert (answer.status, answer.json()["memory"]) == (200, 1)


_SECRET = "somebody-secret"
NO_USER = {
    "both": {"email": f"{_SECRET}@example.org", "subject": _SECRET},
    "both, one null": {"email": None, "subject": _SECRET},
    "both, one empty": {"email": "", "subject": _SECRET},
    "none": {},
    "a tenant only": {"tenant": _SECRET},
    "a null": {"email": None},
    "an empty address": {"email": ""},
    "white space": {"email": " \t\r\n"},
    "an empty subject": {"subject": ""},
    "a long subject": {"subject": _SECRET + "x" * 255},
    "an unknown field": {"email": ADA, _SECRET: 1},
    "a misspelled field": {"Email": f"{_SECRET}@example.org"},
    "a number": {"subject": 7},
    "a list": {"email": [f"{_SECRET}@example.org"]},
    "a tenant that is no text": {"email": ADA, "tenant": None},
    "a number for a tenant": {"email": ADA, "tenant": 7},
    "half a surrogate pair": {"email": f"{_SECRET}\ud800@example.org"},
    "half a surrogate pair in a tenant": {"email": ADA, "tenant": "\udfff"},
    "an array": [ADA],
    "a text": f"{_SECRET}@example.org",
    "nothing": None,
}
GARBAGE = {
    "empty": b"",
    "not JSON": f"email={_SECRET}@example.org".encode(),
    "broken off": b'{"email": "ada@exam',
    "twice": b'{"email": "ada@example.com"} {"email": "ada@example.com"}',
    "not UTF-8": b'{"email": "ada\xff@example.com"}',
    "Latin-1": b'{"subject": "\xe4"}',
    "UTF-16": json.dumps({"email": ADA}).encode("utf-16"),
    "nested": b"[" * 50_000,
    "nested in a field": b'{"email": ' + b'{"a":' * 10_000,
    "too large": json.dumps({"email": ADA, "tenant": "x" * MAX_BODY}).encode(),
    "too large in white space": b" " * MAX_BODY + json.dumps({"email": ADA}).encode(),
}


@pytest.mark.parametrize(
    "body",
    [pytest.param(json.dumps(each).encode(), id=name) for name, each in NO_USER.items()]
    + [pytest.param(each, id=name) for name, each in GARBAGE.items()],
)
async def test_a_body_that_names_no_user_is_a_bad_request(
    plugin: ContextPlugin[UserContext], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It forgets no user, the answer shows what to send, and neither the answer nor the log repeats anything of it."""
    await plugin.resolve(ADA)
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    answer = await post(plugin, body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["detail"].startswith("the request names no user: POST ")
    assert plugin.stats().memory.entries == 1
    lines = [record for record in caplog.records if record.name == "ctxmiddleware.audit"]
    assert [(vars(record)["user"], vars(record)["outcome"]) for record in lines] == [("no user", "refused: no user")]
    shown = answer.body.decode() + caplog.text + repr([vars(record) for record in caplog.records])
    assert _SECRET not in shown
    assert "x" * 20 not in shown


async def test_no_more_of_a_body_is_read_than_a_user_can_take(plugin: ContextPlugin[UserContext]) -> None:
    """What comes after the limit is left to the server."""
    answer = Answer()
    pieces = 0

    async def endless() -> Message:
        nonlocal pieces
        pieces += 1
        await anyio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b" " * 4096, "more_body": True}

    with anyio.fail_after(10):
        await plugin.admin(http_scope("/invalidate", method="POST", headers=AUTHORIZED), endless, answer.send)
    assert answer.status == 400
    assert pieces <= MAX_BODY // 4096 + 2


async def test_the_largest_body_is_taken(plugin: ContextPlugin[UserContext]) -> None:
    """64 KiB hold any user."""
    await plugin.resolve(ADA)
    body = json.dumps({"email": ADA}).encode()
    assert (await post(plugin, b" " * (MAX_BODY - len(body)), body)).json()["memory"] == 1


async def test_a_client_that_hangs_up_in_its_body_is_no_failure(plugin: ContextPlugin[UserContext]) -> None:
    """No user is forgotten, and no traceback is left to the server."""
    await plugin.resolve(ADA)
    begun = {"type": "http.request", "body": json.dumps({"email": ADA}).encode(), "more_body": True}
    assert (await sent(plugin, [begun, {"type": "http.disconnect"}])).status == 400
    assert plugin.stats().memory.entries == 1


async def test_a_body_is_not_read_without_the_token(plugin: ContextPlugin[UserContext]) -> None:
    """The door comes first."""
    assert (await ask(plugin.admin, http_scope("/invalidate", method="POST"))).status == 401


@pytest.mark.parametrize(
    ("body", "user"),
    [({"email": ADA.upper()}, Identity(ADA)), ({"subject": "aB3", "tenant": "acme-tenant"}, Identity(subject="aB3"))],
)
async def test_the_log_has_a_hash_of_the_user_in_a_body(
    body: dict[str, str], user: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    """The same one as in every other line, and nothing of the user or the tenant."""
    caplog.set_level(logging.DEBUG)
    plugin = plugin_of(admin_guard=BearerToken(TOKEN), log_key=LOG_KEY)
    assert (await post(plugin, json.dumps(body).encode())).status == 200
    lines = [record for record in caplog.records if record.name == "ctxmiddleware.audit"]
    assert [vars(record)["user"] for record in lines] == [Pseudonyms(LOG_KEY).of(user)]
    shown = caplog.text + repr([vars(record) for record in caplog.records])
    assert all(each not in shown for each in (ADA, ADA.upper(), "aB3", "acme-tenant"))
