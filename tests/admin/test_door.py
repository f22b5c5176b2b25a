"""Who gets into the admin, how often somebody may fail, and what of it is written down."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import anyio
import pytest
from starlette.requests import HTTPConnection
from starlette.types import Scope

from ctxmiddleware import (
    BearerToken,
    ConfigurationError,
    ContextRule,
    Identity,
    InvalidationFailed,
    UserContextMiddleware,
)
from ctxmiddleware.admin.app import AdminApp
from ctxmiddleware.admin.attempts import KEPT, Attempts
from ctxmiddleware.pseudonym import Pseudonyms
from ctxmiddleware.testing import FakeClock

from ..asgi import Answer, ask, http_scope
from ..people import ADA, BOB, BROKEN, DOWN, GONE, NOBODY, TOKEN, plugin_of

pytestmark = pytest.mark.anyio

KEY = "a key for the logs"
HASH = Pseudonyms(KEY).of(Identity(ADA))
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
OWN = {"origin": "http://app.example", "host": "app.example"}


def _scope(method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> Scope:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return {**http_scope(path), "method": method, "headers": raw, "client": ("192.0.2.1", 1), **more}


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """The lines of the audit log."""
    caplog.set_level(logging.INFO, "ctxmiddleware.audit")
    found: list[logging.LogRecord] = []

    class Audit(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Audit()
    logging.getLogger("ctxmiddleware.audit").addHandler(handler)
    yield found
    logging.getLogger("ctxmiddleware.audit").removeHandler(handler)


def is_ada(context: Any) -> bool:
    """Let Ada in."""
    return bool(context.email == ADA)


@pytest.mark.parametrize("user", [ADA, BOB, GONE, NOBODY, DOWN, BROKEN, None])
@pytest.mark.parametrize("required", [True, False])
async def test_a_rule_looks_at_what_is_known_of_who_asks(user: str | None, required: bool) -> None:  # noqa: FBT001
    """Whoever has no context, for whatever reason, is not let in; only who has not signed in is told to."""
    plugin = plugin_of(admin_guard=ContextRule(is_ada))
    app = UserContextMiddleware(plugin.admin, plugin=plugin, required=required)
    answer = await ask(app, http_scope("/stats", user=user))
    assert answer.status == {ADA: 200, None: 401, DOWN: 503, BROKEN: 503}.get(user, 403)
    assert ("www-authenticate" in answer.headers, "retry-after" in answer.headers) == (
        user is None,
        answer.status == 503,
    )


@pytest.mark.parametrize("rule", [lambda _: 1, lambda _: "yes", lambda _: None, lambda: True, lambda _: 1 / 0])
async def test_a_rule_that_does_not_say_true_lets_nobody_in(rule: Any) -> None:
    """Nor does one that fails."""
    plugin = plugin_of(admin_guard=ContextRule(rule))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    assert (await ask(app, http_scope("/stats", user=ADA))).status == 403


async def test_a_rule_without_the_middleware_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """And the log says what is missing; nor does one for another plugin's contexts."""
    plugin = plugin_of(admin_guard=ContextRule(lambda _: True, name="other"))
    assert (await ask(plugin.admin, http_scope("/stats"))).status == 401
    assert "ContextRule needs UserContextMiddleware" in caplog.text
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    assert (await ask(app, http_scope("/stats", user=ADA))).status == 401
    other = plugin_of(admin_guard=ContextRule(is_ada, name="other"), name="other")
    assert (await ask(UserContextMiddleware(other.admin, plugin=other), http_scope("/stats", user=ADA))).status == 200


def test_a_rule_has_to_be_one() -> None:
    """What cannot be called is refused at once, and its repr tells nothing of it."""
    with pytest.raises(ConfigurationError, match="the rule was str"):
        ContextRule("admin")  # type: ignore[arg-type]
    assert repr(ContextRule(is_ada)) == "<ContextRule on the context of its admin>"


CSRF = [
    ({}, False),
    ({"x-requested-with": "x"}, True),
    ({"x-requested-with": ""}, False),
    (OWN, True),
    ({"origin": "http://app.example:80", "host": "app.example"}, True),
    ({"origin": "https://app.example", "host": "app.example"}, True),
    ({"origin": "https://app.example", "host": "app.example:443"}, True),
    ({"origin": "http://app.example:8080", "host": "app.example:8080"}, True),
    ({"origin": "http://APP.example", "host": "app.example"}, True),
    ({"origin": "http://mallory.example", "host": "app.example"}, False),
    ({"origin": "http://app.example.mallory.example", "host": "app.example"}, False),
    ({"origin": "http://app.example@mallory.example", "host": "app.example"}, False),
    ({"origin": "http://app.example:8080", "host": "app.example"}, False),
    ({"origin": "ftp://app.example", "host": "app.example"}, False),
    ({"origin": "http://app.example/", "host": "app.example"}, False),
    ({"origin": "null", "host": "app.example"}, False),
    ({"origin": "", "host": ""}, False),
    ({"origin": "http://", "host": ""}, False),
    ({"origin": "http://app.example:port", "host": "app.example:port"}, False),
    ({"origin": "http://[::1", "host": "[::1"}, False),
    ({"origin": "http://app.example"}, False),
    ({"sec-fetch-site": "same-origin"}, True),
    ({"sec-fetch-site": "same-origin", **OWN}, True),
    ({"sec-fetch-site": "same-origin", "origin": "http://mallory.example", "host": "app.example"}, False),
    ({"sec-fetch-site": "same-site"}, False),
    ({"sec-fetch-site": "same-site", **OWN}, False),
    ({"sec-fetch-site": "cross-site", **OWN}, False),
    ({"sec-fetch-site": "none"}, False),
    ({"sec-fetch-site": "same-origin, cross-site"}, False),
    ({"referer": "http://app.example/", "host": "app.example"}, False),
    # A header of one's own is no leave where the browser says who has sent it: CORS may let it through.
    ({"sec-fetch-site": "cross-site", "x-requested-with": "x"}, False),
    ({"sec-fetch-site": "same-site", "x-requested-with": "x", **OWN}, False),
    ({"sec-fetch-site": "none", "x-requested-with": "x"}, False),
    ({"origin": "http://mallory.example", "host": "app.example", "x-requested-with": "x"}, False),
    ({"origin": "null", "host": "app.example", "x-requested-with": "x"}, False),
    # A proxy that gives the application another Host than the browser has.
    (
        {"sec-fetch-site": "same-origin", "origin": "https://app.example", "host": "10.0.0.3", "x-requested-with": "x"},
        True,
    ),
    ({"origin": "http://app.example", "host": "10.0.0.3", "x-forwarded-host": "app.example"}, False),
]


@pytest.mark.parametrize(("headers", "is_meant"), CSRF, ids=str)
async def test_what_another_site_may_have_sent_changes_nothing(headers: dict[str, str], *, is_meant: bool) -> None:
    """Where a browser sends by itself what lets its user in; whatever only looks is not asked where it is from."""
    plugin = plugin_of(admin_guard=ContextRule(is_ada))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    await plugin.resolve(BOB)
    for path in ("/clear", f"/invalidate/{BOB}"):
        answer = await ask(app, _scope("POST", path, {"x-user": ADA, **headers}))
        assert answer.status == (200 if is_meant else 403)
    if not is_meant:
        assert plugin.stats().memory.entries == 2
        assert "from this site's own pages" in answer.json()["detail"]
    assert (await ask(app, _scope("GET", "/stats", {"x-user": ADA, **headers}))).status == 200


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "needs a header X-Requested-With"),
        ({"sec-fetch-site": "cross-site"}, "the browser says that it does not"),
        ({"origin": "https://app.example", "host": "10.0.0.3"}, "Origin is not this Host's"),
        ({"sec-fetch-site": "same-origin", "origin": "https://app.example", "host": "10.0.0.3"}, "X-Requested-With"),
    ],
    ids=str,
)
async def test_whoever_is_refused_for_his_origin_is_told_what_to_do(headers: dict[str, str], told: str) -> None:
    """A header where that helps, and else what the browser or the proxy has to say differently."""
    answer = await ask(plugin_of(admin_guard=lambda _: True).admin, _scope("POST", "/clear", headers))
    assert (answer.status, told in answer.json()["detail"]) == (403, True)


@pytest.mark.parametrize("name", ["origin", "sec-fetch-site"])
async def test_a_header_that_is_there_twice_says_nothing(name: str) -> None:
    """One of them may be another's."""
    plugin = plugin_of(admin_guard=lambda _: True)
    value = {"origin": b"http://app.example", "sec-fetch-site": b"same-origin"}[name]
    headers = [(name.encode(), value), (name.encode(), value), (b"host", b"app.example")]
    assert (await ask(plugin.admin, {**_scope("POST", "/clear"), "headers": headers})).status == 403
    assert (await ask(plugin.admin, {**_scope("POST", "/clear"), "headers": headers[1:]})).status == 200


async def test_a_token_is_never_sent_by_itself() -> None:
    """A script in a shell has no origin, and needs none; nor does a guard that says so of itself."""

    class Explicit:
        is_explicit = True

        def __call__(self, connection: HTTPConnection) -> bool:
            return connection.headers.get("x-key") == "right"

    answer = await ask(plugin_of(admin_guard=BearerToken(TOKEN)).admin, _scope("POST", "/clear", AUTHORIZED))
    assert answer.status == 200
    answer = await ask(plugin_of(admin_guard=Explicit()).admin, _scope("POST", "/clear", {"x-key": "right"}))
    assert answer.status == 200


class Guessable:
    """A guard of one's own: what it looks at may be a short word."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, connection: HTTPConnection) -> bool:
        self.asked += 1
        return connection.headers.get("authorization") == f"Bearer {TOKEN}"


def _admin(attempts: Attempts, guard: Any = None) -> AdminApp:
    return AdminApp(plugin_of(), guard or BearerToken(TOKEN), attempts=attempts)


async def _status(admin: AdminApp, peer: str | None, *, right: bool = False) -> int:
    client = None if peer is None else (peer, 1)
    headers = AUTHORIZED if right else {"authorization": "Bearer wrong"}
    answer = await ask(admin, _scope("GET", "/stats", headers, client=client))
    return answer.status


async def test_whoever_fails_too_often_is_told_to_wait() -> None:
    """By problem details, with the time; and slowly again after that, until all is forgotten."""
    clock = FakeClock()
    admin = _admin(Attempts(burst=5, every=3, clock=clock))
    assert [await _status(admin, "192.0.2.1") for _ in range(7)] == [401] * 5 + [429] * 2
    assert await _status(admin, "192.0.2.2") == 401
    answer = await ask(admin, _scope("GET", "/stats", {}))
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["content-type"] == "application/problem+json"
    clock.advance(2.9)
    assert await _status(admin, "192.0.2.1") == 429
    clock.advance(0.1)
    assert [await _status(admin, "192.0.2.1") for _ in range(2)] == [401, 429]
    clock.advance(15)
    assert [await _status(admin, "192.0.2.1") for _ in range(6)] == [401] * 5 + [429]


@pytest.mark.parametrize("peer", ["192.0.2.1", None])
async def test_nobody_is_shut_out_by_others_who_fail(peer: str | None) -> None:
    """The token, and whom a rule lets in, cannot be guessed: they are let in, whoever else comes from that address.

    A page of another site can make an operator's own browser fail as often as it likes, and behind a proxy all may be
    one peer.
    """
    admin = _admin(Attempts(burst=5, every=3600))
    assert [await _status(admin, peer) for _ in range(50)] == [401] * 5 + [429] * 45
    assert await _status(admin, peer, right=True) == 200
    plugin = plugin_of(admin_guard=ContextRule(is_ada))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    statuses = [(await ask(app, http_scope("/stats", user=BOB))).status for _ in range(25)]
    assert statuses == [403] * 20 + [429] * 5
    assert (await ask(app, http_scope("/stats", user=ADA))).status == 200


async def test_what_may_be_guessed_is_not_looked_at_for_a_while() -> None:
    """A guard of one's own is not even asked for a peer that has failed too often, nor pays for its flood."""
    clock, guard = FakeClock(), Guessable()
    admin = _admin(Attempts(burst=5, every=3, clock=clock), guard)
    assert [await _status(admin, "192.0.2.1") for _ in range(50)] == [401] * 5 + [429] * 45
    assert guard.asked == 5
    assert await _status(admin, "192.0.2.1", right=True) == 429
    assert await _status(admin, "192.0.2.2", right=True) == 200
    clock.advance(3)
    assert await _status(admin, "192.0.2.1", right=True) == 200


async def test_who_is_let_in_may_ask_as_often_as_he_likes() -> None:
    """A script that forgets thousands of users one by one is no attempt."""
    admin = _admin(Attempts(burst=1, every=3600), Guessable())
    assert {await _status(admin, "192.0.2.1", right=True) for _ in range(50)} == {200}


async def test_one_somebody_is_one_network_and_no_more_are_kept_than_may_be() -> None:
    """Of IPv6 a user has a whole /64; without an address all are one."""
    attempts = Attempts(burst=1, every=60, clock=FakeClock())
    admin = _admin(attempts)
    for one, another, is_same in [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.9", "::ffff:192.0.2.10", False),
        (None, None, True),
        ("unix", "unix", True),
    ]:
        attempts._buckets.clear()
        assert await _status(admin, one) == 401
        assert await _status(admin, another) == (429 if is_same else 401)
    for number in range(KEPT + 500):
        attempts.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts) == KEPT
    assert attempts.wait("10.0.0.1") == 0
    assert attempts.wait(f"10.0.{(KEPT + 499) >> 8}.{(KEPT + 499) & 255}") > 0


async def test_each_deed_leaves_a_line(audited: list[logging.LogRecord]) -> None:
    """By whom, from where, about whom, and what became of it; nobody's address."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN), log_key=KEY)
    for path in ("/clear", f"/invalidate/{ADA.upper()}", "/invalidate/%20"):
        await ask(plugin.admin, _scope("POST", path.replace("%20", " "), AUTHORIZED))
    await ask(plugin.admin, _scope("GET", "/stats", AUTHORIZED))
    assert [record.getMessage() for record in audited] == [
        "admin: clear of everybody by token from 192.0.2.1: done",
        f"admin: invalidate of {HASH} by token from 192.0.2.1: done",
        "admin: invalidate of no user by token from 192.0.2.1: refused: no user",
    ]
    assert [record.levelno for record in audited] == [logging.INFO, logging.INFO, logging.WARNING]
    fields = {name: vars(audited[1])[name] for name in ("action", "user", "actor", "peer", "outcome")}
    assert fields == {
        "action": "invalidate",
        "user": HASH,
        "actor": "token",
        "peer": "192.0.2.1",
        "outcome": "done",
    }


async def test_a_user_who_is_let_in_is_named_by_his_hash(audited: list[logging.LogRecord]) -> None:
    """And a guard of one's own by the word it has for itself."""
    plugin = plugin_of(admin_guard=ContextRule(is_ada), log_key=KEY)
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    await ask(app, _scope("POST", "/clear", {"x-user": ADA, "x-requested-with": "x"}))
    other = plugin_of(admin_guard=lambda _: True)
    await ask(other.admin, _scope("POST", "/clear", {"x-requested-with": "x"}, client=None))
    assert [record.getMessage() for record in audited] == [
        f"admin: clear of everybody by user {HASH} from 192.0.2.1: done",
        "admin: clear of everybody by guard from no address: done",
    ]


async def test_a_deed_that_was_refused_leaves_a_line_too(audited: list[logging.LogRecord]) -> None:
    """Without the target, which is the sender's to choose; and none for each of a flood."""
    plugin = plugin_of(admin_guard=ContextRule(is_ada), log_key=KEY)
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    await ask(app, _scope("POST", "/clear/", {"x-user": ADA}))
    for _ in range(100):
        await ask(app, _scope("POST", "/invalidate/boss@example.org", {"x-user": BOB}))
    told = [record.getMessage() for record in audited]
    assert told[0] == (
        f"admin: clear of somebody by user {HASH} from 192.0.2.1: refused, because another site may have sent it"
    )
    bob = Pseudonyms(KEY).of(Identity(BOB))
    assert set(told[1:]) == {f"admin: invalidate of somebody by user {bob} from 192.0.2.1: refused by the guard"}
    assert len(told) == 21
    await ask(app, _scope("POST", "/clear", {}, client=("192.0.2.2", 1)))
    assert audited[-1].getMessage() == (
        "admin: clear of somebody by nobody let in from 192.0.2.2: refused by the guard (and 80 more before it)"
    )
    assert vars(audited[-1])["unwritten"] == 80
    assert not any("boss" in str(vars(record)) for record in audited)


async def test_a_flood_from_many_places_fills_no_log(audited: list[logging.LogRecord]) -> None:
    """All together are written a bounded number of lines, and the rest is counted."""
    admin = _admin(Attempts(), Guessable())
    for number in range(400):
        await ask(admin, _scope("POST", "/clear", {}, client=(f"192.0.2.{number % 250}", 1)))
    assert 200 <= len(audited) < 250


@pytest.mark.parametrize(
    ("method", "path", "is_told"),
    [("POST", "/clear", True), ("POST", "/invalidate/x", True), ("DELETE", "/stats", False), ("GET", "/clear", False)],
)
@pytest.mark.parametrize("guard", [None, lambda _: False], ids=["closed", "guarded"])
async def test_only_what_would_forget_somebody_is_written_down(
    method: str,
    path: str,
    is_told: bool,  # noqa: FBT001
    guard: Any,
    audited: list[logging.LogRecord],
) -> None:
    """Refused by the guard or by a closed door; other requests are no deeds. Below a root path too."""
    admin = AdminApp(plugin_of(), guard)
    await ask(admin, _scope(method, f"/cache{path}", {}, root_path="/cache"))
    assert len(audited) == is_told


@pytest.mark.parametrize("peer", ["10.0.0.1: done\nadmin: clear", "ada@example.com", "x" * 65, "\x1b[2J", ""])
async def test_an_odd_peer_writes_no_line_of_its_own(peer: str, audited: list[logging.LogRecord]) -> None:
    """A proxy may pass on what somebody wrote into a header: it is not believed to be an address, and not kept."""
    attempts = Attempts()
    await ask(_admin(attempts), _scope("POST", "/clear", {}, client=(peer, 1)))
    assert "from an odd address: refused" in audited[0].getMessage()
    assert list(attempts._buckets) == ["an odd address"]


class Failing:
    """Operations that end as the test wants them to."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.started = anyio.Event()

    def stats(self) -> object:
        """Have none."""
        return {}

    async def invalidate(self, users: Identity | Sequence[Identity], *, or_clear: bool = False) -> object:
        """Fail, or never end."""
        self.started.set()
        if self.error is not None:
            raise self.error
        await anyio.sleep_forever()
        return None

    async def clear(self) -> object:
        """Fail, or never end."""
        return await self.invalidate(Identity(ADA))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InvalidationFailed({"redis": "failed"}), "Redis could not be told"),
        (RuntimeError("secret"), "failed (RuntimeError)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/clear", f"/invalidate/{ADA}"])
async def test_a_deed_that_fails_leaves_a_line(
    error: Exception, outcome: str, path: str, audited: list[logging.LogRecord]
) -> None:
    """With what is known of it, and nothing of the inside."""
    admin = AdminApp(Failing(error), BearerToken(TOKEN))
    answer = Answer()
    try:
        await admin(_scope("POST", path, AUTHORIZED), _nothing, answer.send)
    except RuntimeError:
        assert isinstance(error, RuntimeError)
    assert [vars(record)["outcome"] for record in audited] == [outcome]
    assert "secret" not in audited[0].getMessage()


async def test_a_caller_who_hangs_up_leaves_a_line(audited: list[logging.LogRecord]) -> None:
    """What he asked for may have happened."""
    operations = Failing(None)
    admin = AdminApp(operations, BearerToken(TOKEN))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(admin, _scope("POST", "/clear", AUTHORIZED), _nothing, Answer().send)
        await operations.started.wait()
        tasks.cancel_scope.cancel()
    assert [vars(record)["outcome"] for record in audited] == ["broken off"]


async def _nothing() -> Any:
    await anyio.sleep_forever()


async def test_whoever_has_not_confirmed_is_counted(audited: list[logging.LogRecord]) -> None:
    """An invalidation that others have not heard of yet is not simply done."""

    class Half(Failing):
        async def invalidate(self, users: Identity | Sequence[Identity], *, or_clear: bool = False) -> object:
            return type("Report", (), {"silent": (1, 2), "__slots__": ()})()

    admin = AdminApp(Half(None), BearerToken(TOKEN))
    answer = Answer()
    with suppress(TypeError):  # a report of that kind cannot be told
        await admin(_scope("POST", "/clear", AUTHORIZED), _nothing, answer.send)
    assert [vars(record)["outcome"] for record in audited] == ["done, 2 not confirmed"]


async def test_every_answer_is_for_one_reader_and_for_no_page() -> None:
    """Nobody keeps it, guesses what it is, or frames it."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    for path, headers in (("/stats", AUTHORIZED), ("/nope", AUTHORIZED), ("/stats", {})):
        answer = await ask(plugin.admin, _scope("GET", path, headers))
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
