"""Whether requests without a context are counted by reason, and reported once a minute with what to compare."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jwk import OctKey
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import (
    BadCredential,
    BearerJWT,
    BearerToken,
    ContextPlugin,
    Identity,
    ScopeUser,
    TrustedHeader,
    UserContextMiddleware,
    first_of,
    public,
)
from ctxmiddleware.failure_log import SECONDS
from ctxmiddleware.refusals import Cause, Counted, Refusals
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock, StaticSource

from .asgi import ask, http_scope, no_lifespan
from .identity.issuer import EC, ISSUER, MALLORY, NOW, OCT, SECRET, key_set, publishing, raw, signed, wall_clock
from .people import ADA, BROKEN, DOWN, GONE, MALFORMED, NOBODY, TOKEN, plugin_of

pytestmark = pytest.mark.anyio

ADMIN = "/api/admin/cache"


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.message = record.getMessage()
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """Keep the log from INFO; in the end none of it may hold an address or a token."""
    handler, logger = _Kept(), logging.getLogger("ctxmiddleware")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(before)
    everything = repr([vars(record) for record in handler.records])
    assert "@example" not in everything
    assert "eyJ" not in everything


def _sent(token: str) -> Scope:
    return {**http_scope(), "headers": [(b"authorization", f"Bearer {token}".encode())]}


def _by_secret(**changed: Any) -> BearerJWT:
    return BearerJWT(**{"secret": SECRET, "issuer": ISSUER, "wall_clock": wall_clock, **changed})


def _hs256(**changed: Any) -> str:
    return signed(OCT, "HS256", **changed)


BAD = [
    ("expired", _hs256(exp=NOW - 60), "differ by 10 s"),
    ("not yet valid", _hs256(nbf=NOW + 60), "compare the clocks"),
    ("issuer", _hs256(iss=f"{ISSUER}/"), f"the configured issuer: '{ISSUER}'"),
    ("audience", _hs256(aud="mobile"), "the configured audience: 'authenticated'"),
    ("signature", signed(OctKey.import_key("s" * 32), "HS256"), "the shared secret"),
    ("unknown key", signed(EC), "compare its algorithm and 'kid' with the shared secret"),
    ("malformed", "an-opaque-key", "a signed JWT"),
    ("malformed", raw('{"alg": "HS256", "alg": "HS256"}', {}), "its header cannot be read"),
    ("claims", _hs256(email=""), "the configured claim 'email'"),
    ("claims", _hs256(email_verified=False), "not verified"),
    ("claims", _hs256(role="service_role"), "names no user"),
]


@pytest.mark.parametrize("on_bad", ["anonymous", "refuse"])
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize(("reason", "token", "hint"), BAD, ids=lambda value: value[:12])
async def test_a_bad_token_is_counted_and_reported_by_its_reason(
    reason: str,
    token: str,
    hint: str,
    on_bad: Any,
    lines: list[logging.LogRecord],
    *,
    required: bool,
) -> None:
    """One WARNING for the first of a hundred names what to compare, whatever becomes of the requests."""
    plugin = plugin_of(identify=_by_secret(on_bad=on_bad))
    app = UserContextMiddleware(no_lifespan, plugin=plugin, required=required)
    for _ in range(100):
        await ask(app, _sent(token))
    assert plugin.stats().refusals == {reason: 100}
    (line,) = lines
    assert (line.levelno, vars(line)["reason"], vars(line)["count"]) == (logging.WARNING, reason, 1)
    assert hint in line.message


@pytest.mark.parametrize(
    ("token", "reason"), [(signed(MALLORY), "signature"), (signed(EC, header={"kid": "new"}), "unknown key")]
)
async def test_reasons_of_published_keys_name_the_key_set(
    token: str, reason: str, lines: list[logging.LogRecord]
) -> None:
    """Also where a way had to be awaited; with the key set unreachable the reason is the outage."""
    async with publishing(key_set(EC)) as server:
        plugin = plugin_of(identify=BearerJWT(server.url, issuer=ISSUER, wall_clock=wall_clock))
        app = UserContextMiddleware(no_lifespan, plugin=plugin)
        await ask(app, _sent(token))
        assert plugin.stats().refusals == {reason: 1}
        assert server.url in lines[-1].message
        server.status = 500
        down = plugin_of(identify=BearerJWT(server.url, issuer=ISSUER, wall_clock=wall_clock))
        assert (await ask(UserContextMiddleware(no_lifespan, plugin=down), _sent(token))).status == 503
        assert down.stats().refusals == {"unavailable": 1}


def _identify_with(error: Exception) -> Any:
    def identify(scope: Scope) -> Identity | None:
        raise error

    return identify


USERS = [
    (NOBODY, "unknown user", logging.WARNING, "the rows of the source"),
    (GONE, "inactive", logging.WARNING, "is_active"),
    (DOWN, "unavailable", logging.WARNING, "the source is down"),
    (BROKEN, "broken", logging.ERROR, "hr.secret is missing"),
    (MALFORMED, "broken", logging.ERROR, "employees.id held"),
]


@pytest.mark.parametrize(("user", "reason", "level", "hint"), USERS)
async def test_users_without_a_context_are_counted_and_reported(
    user: str, reason: str, level: int, hint: str, lines: list[logging.LogRecord]
) -> None:
    """Refused or not, once for all requests of a minute, with the hash of the user and without a traceback."""
    plugin = plugin_of()
    for required in (False, True, True):
        await ask(UserContextMiddleware(no_lifespan, plugin=plugin, required=required), http_scope(user=user))
    assert plugin.stats().refusals == {reason: 3}
    (line,) = [line for line in lines if line.name == "ctxmiddleware.refusals"]
    assert (line.levelno, line.exc_info, vars(line)["user"]) == (level, None, plugin.pseudonyms.of(Identity(user)))
    assert hint in line.message


@pytest.mark.parametrize(
    ("error", "reason", "level"),
    [
        (BadCredential("the session has ended"), "credential", logging.WARNING),
        (BadCredential("the session has ended", fault="expired"), "expired", logging.WARNING),
        (BadCredential("odd", fault="ada's own"), "credential", logging.WARNING),  # type: ignore[arg-type]  # the fault
        (HTTPException(429), "rejected", logging.WARNING),
        (LookupError("a bug"), "broken", logging.ERROR),
    ],
    ids=repr,
)
async def test_what_identify_raises_is_counted_and_reported(
    error: Exception, reason: str, level: int, lines: list[logging.LogRecord]
) -> None:
    """Only an exception that is a bug has its traceback in the log, once a minute for each type."""
    plugin = plugin_of(identify=_identify_with(error))
    for _ in range(10):
        await ask(UserContextMiddleware(no_lifespan, plugin=plugin), http_scope())
    assert plugin.stats().refusals == {reason: 10}
    (line,) = lines
    assert (line.levelno, line.exc_info is not None) == (level, reason == "broken")


async def test_two_kinds_of_bugs_are_reported_apart(lines: list[logging.LogRecord]) -> None:
    """The traceback of the second is not hidden by the first."""
    errors = [LookupError("one"), LookupError("one"), KeyError("other")]
    plugin = plugin_of(identify=lambda scope: _identify_with(errors.pop())(scope))
    for _ in range(3):
        await ask(UserContextMiddleware(no_lifespan, plugin=plugin), http_scope())
    assert [line.exc_info[0] for line in lines if line.exc_info] == [KeyError, LookupError]


async def test_a_reason_that_lasts_is_reported_once_a_minute(lines: list[logging.LogRecord]) -> None:
    """Each line counts the requests since the one before; another reason has lines of its own."""
    clock = FakeClock()
    plugin = plugin_of(identify=_by_secret(), clock=clock)
    app = UserContextMiddleware(no_lifespan, plugin=plugin)

    async def send(token: str, times: int) -> None:
        for _ in range(times):
            await ask(app, _sent(token))

    await send(_hs256(exp=NOW - 60), 5)
    await send("opaque", 3)
    clock.advance(SECONDS - 1)
    await send(_hs256(exp=NOW - 60), 5)
    clock.advance(1)
    await send(_hs256(exp=NOW - 60), 2)
    clock.advance(10 * SECONDS)
    await send("opaque", 1)
    told = [(vars(line)["reason"], vars(line)["count"]) for line in lines]
    assert told == [("expired", 1), ("malformed", 1), ("expired", 10), ("malformed", 3)]


async def test_an_anonymous_request_is_reported_only_where_it_is_refused(lines: list[logging.LogRecord]) -> None:
    """It is counted in both cases."""
    plugin = plugin_of(identify=_by_secret())
    await ask(UserContextMiddleware(no_lifespan, plugin=plugin), http_scope())
    assert lines == []
    await ask(UserContextMiddleware(no_lifespan, plugin=plugin, required=True), http_scope())
    assert plugin.stats().refusals == {"anonymous": 2}
    (line,) = lines
    assert "no credential was found by BearerJWT" in line.message


async def test_a_request_that_a_later_way_identifies_is_no_refusal(lines: list[logging.LogRecord]) -> None:
    """Notes of earlier ways are not counted, neither here nor for another plugin on the same scope."""
    identify = first_of(ScopeUser(), _by_secret(), lambda scope: Identity(ADA))
    plugin, other = plugin_of(identify=identify), plugin_of(identify=lambda scope: None, name="other")
    app = UserContextMiddleware(UserContextMiddleware(no_lifespan, plugin=other), plugin=plugin)
    await ask(app, _sent("opaque"))
    assert (plugin.stats().requests, plugin.stats().refusals) == ({"served": 1}, {})
    assert other.stats().refusals == {"anonymous": 1}
    assert lines == []


async def test_of_several_ways_the_one_that_claims_the_token_names_the_reason() -> None:
    """And where none claims it, a wrong issuer says more than a wrong form."""
    other = _by_secret(issuer="https://other.example")
    plugin = plugin_of(identify=first_of(ScopeUser(), other, _by_secret()))
    app = UserContextMiddleware(no_lifespan, plugin=plugin)
    await ask(app, _sent(_hs256(exp=NOW - 60)))
    await ask(app, _sent(_hs256(iss="https://third.example")))
    assert plugin.stats().refusals == {"expired": 1, "issuer": 1}


@pytest.mark.parametrize("bearer", [True, False])
async def test_without_a_jwt_setting_the_hint_names_the_variables(
    lines: list[logging.LogRecord],
    *,
    bearer: bool,
) -> None:
    """And not the order of middlewares; with `ScopeUser` given it is the order."""
    environ = {"SUPABASE_URL": "https://ABC.supabase.co/rest/v1", "SUPABASE_KEY": "sb_secret_x"}
    scope = _sent(_hs256()) if bearer else http_scope()
    plugin = ContextPlugin.from_env(environ)
    for _ in range(3):
        await ask(UserContextMiddleware(no_lifespan, plugin=plugin), dict(scope))
    (line,) = lines
    assert "SUPABASE_JWT_SECRET" in line.message
    assert "SUPABASE_JWKS_URL (such as 'https://abc.supabase.co/auth/v1/.well-known/jwks.json')" in line.message
    assert "add_middleware" not in line.message
    assert plugin.stats().refusals == {"no user on the scope": 3}
    given = ContextPlugin.from_env(environ, identify=ScopeUser())
    await ask(UserContextMiddleware(no_lifespan, plugin=given), dict(scope))
    assert "add_middleware" in lines[-1].message


async def test_a_header_of_an_untrusted_peer_is_counted_and_reported(lines: list[logging.LogRecord]) -> None:
    """With every user anonymous, the line names the peers; and a header that is there twice the proxy."""
    plugin = plugin_of(identify=TrustedHeader("X-User", peers=["10.0.0.7"]))
    app = UserContextMiddleware(no_lifespan, plugin=plugin)
    for _ in range(3):
        await ask(app, http_scope(user=ADA, client=("10.0.0.8", 1)))
    twice = http_scope(user=ADA, client=("10.0.0.7", 1))
    twice["headers"] = [*twice["headers"], *twice["headers"]]
    await ask(app, twice)
    assert plugin.stats().refusals == {"untrusted peer": 3, "malformed": 1}
    assert ["list the proxy" in line.message for line in lines] == [True, False]


def _dispatching(admin: ASGIApp) -> ASGIApp:
    """Return an app whose routing cannot be read."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (admin if scope["path"].startswith(ADMIN) else no_lifespan)({**scope, "root_path": ADMIN}, receive, send)

    return app


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("identify", [_by_secret(), _by_secret(on_bad="refuse"), ScopeUser()], ids=repr)
async def test_requests_of_the_admin_are_not_counted_as_anonymous(
    identify: Any,
    lines: list[logging.LogRecord],
    *,
    readable: bool,
    required: bool,
) -> None:
    """An operator's token is no user's; neither `requests` nor `refusals` count it, and no line is logged."""
    plugin = plugin_of(identify=identify, admin_guard=BearerToken(TOKEN))
    routes = Starlette(routes=[Mount(ADMIN, app=plugin.admin), Route("/{path:path}", PlainTextResponse("inside"))])
    # Where routing cannot be read, an operator's request is refused like any other unless its path is excluded.
    is_refused = required or getattr(identify, "_is_refusing", False)
    app = UserContextMiddleware(
        routes if readable else _dispatching(plugin.admin),
        plugin=plugin,
        required=required,
        exclude=(ADMIN,) if is_refused and not readable else (),
    )
    for _ in range(3):
        answer = await ask(app, {**_sent(TOKEN), "path": f"{ADMIN}/stats"})
        stats = answer.json()
    assert (stats["requests"].get("anonymous"), stats["refusals"]) == (None, {})
    if readable:
        assert lines == []
    await ask(app, {**_sent(TOKEN), "path": "/me"})
    assert sum(plugin.stats().refusals.values()) == 1


def test_refusals_are_in_the_admins_answer() -> None:
    """By reason, beside what became of requests; public endpoints and excluded paths are in neither reason."""

    @public
    def welcome(request: object) -> PlainTextResponse:
        return PlainTextResponse("welcome")

    plugin = plugin_of(identify=_by_secret(on_bad="refuse"), admin_guard=BearerToken(TOKEN))
    app = Starlette(routes=[Route("/welcome", welcome)])
    plugin.install(app, required=True, exclude=["/health"])
    client = TestClient(app)
    for path in ("/me", "/me", "/health", "/welcome"):
        client.get(path, headers={"authorization": f"Bearer {_hs256(exp=NOW - 60)}"})
    stats = client.get(f"{ADMIN}/stats", headers={"authorization": f"Bearer {TOKEN}"}).json()
    assert (stats["requests"], stats["refusals"]) == ({"excluded": 2, "refused": 2}, {"expired": 2})


@pytest.mark.parametrize(
    "changed", [{"email": ""}, {"email": " "}, {"email": None}, {"without": ["email"]}, {"email": "ada"}], ids=str
)
@pytest.mark.parametrize("required", [False, True])
async def test_a_valid_token_without_an_address_is_no_invalid_token(
    changed: dict[str, Any],
    *,
    required: bool,
) -> None:
    """A client that renews it would get the same: the answer is a 403 that names the claim."""
    plugin = plugin_of(identify=_by_secret(on_bad="refuse"))
    answer = await ask(UserContextMiddleware(no_lifespan, plugin=plugin, required=required), _sent(_hs256(**changed)))
    assert (answer.status, answer.json()["reason"]) == (403, "unknown")
    assert "www-authenticate" not in answer.headers
    assert "its claim 'email'" in answer.json()["detail"]


async def test_a_trusted_header_without_an_address_is_no_invalid_token() -> None:
    """No bearer token was sent, so the challenge names no fault of one."""
    plugin = plugin_of(identify=TrustedHeader("X-User", peers=["10.0.0.7"], on_bad="refuse"))
    answer = await ask(UserContextMiddleware(no_lifespan, plugin=plugin), http_scope(user="", client=("10.0.0.7", 1)))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_counters_of_an_application_with_its_own_source_hold_labels_of_a_fixed_set() -> None:
    """However many types of exceptions there are, a label is a word of ours."""
    plugin = ContextPlugin(
        source=StaticSource[str]({}),
        context_type=str,
        identify=lambda scope: _identify_with(type(f"Error{scope['path'][1:]}", (Exception,), {})())(scope),
    )
    for number in range(200):
        await ask(UserContextMiddleware(no_lifespan, plugin=plugin), http_scope(f"/{number}"))
    assert plugin.stats().refusals == {"broken": 200}
    assert len(plugin.refusals._reported) <= 65


def _refused(counted: Counted, cause: Cause | None = None) -> tuple[dict[str, int], dict[str, int]]:
    counters = Counters()
    counters.add("request", counted.outcome)
    Refusals(counters).refuse(counted, cause)
    return counters.by_label("request"), counters.by_label("refusal")


def test_a_request_that_is_refused_afterwards_is_counted_once() -> None:
    """As refused, in the place of what it was counted as; by its reason, where it had none."""
    cause = Cause("withheld", "a hint")
    assert _refused(Counted("resolved"), cause) == ({"refused": 1}, {"withheld": 1})
    assert _refused(Counted("refused", cause, is_reported=True)) == ({"refused": 1}, {})
    assert _refused(Counted("excluded")) == ({"refused": 1}, {})
