"""Whose context a rule looks at, and several guards at one door."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from ctxmiddleware import (
    BearerToken,
    ConfigurationError,
    ContextPlugin,
    ContextRule,
    Identity,
    SourceUnavailable,
    UserContext,
    UserContextMiddleware,
    any_of,
    role_in,
)
from ctxmiddleware.admin.asking import is_let_in
from ctxmiddleware.pseudonym import Pseudonyms
from ctxmiddleware.testing import StaticSource

from ..asgi import ask, http_scope, no_lifespan
from ..people import ADA, BOB, TOKEN, context_of, plugin_of

pytestmark = pytest.mark.anyio

AUTHORIZED = [(b"authorization", f"Bearer {TOKEN}".encode())]


def anybody(context: Any) -> bool:
    """Let in whoever has a context."""
    return True


def boss() -> StaticSource[UserContext]:
    """A source in which Ada is an admin and Bob is not."""
    ada = context_of(ADA)
    employee = msgspec.structs.replace(ada.employee, role="admin")
    return StaticSource({ADA: msgspec.structs.replace(ada, employee=employee), BOB: context_of(BOB, number=2)})


@pytest.mark.parametrize(("roles", "status"), [(["admin"], 200), (["support", "admin"], 200), (["Admin"], 403)])
async def test_a_role_lets_in_who_has_it(roles: list[str], status: int) -> None:
    """As it is written in the table, and nobody else."""
    plugin = plugin_of(boss(), admin_guard=role_in(*roles))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    assert (await ask(app, http_scope("/stats", user=ADA))).status == status
    assert (await ask(app, http_scope("/stats", user=BOB))).status == 403


@pytest.mark.parametrize("roles", [(), ("",), (None,), (["admin"],)])
def test_a_role_has_to_be_one(roles: Any) -> None:
    """No role would be nobody's, and an empty one whoever has none."""
    with pytest.raises(ConfigurationError, match="one or more roles"):
        role_in(*roles)


@pytest.mark.parametrize("name", ["default", "other"])
async def test_another_plugins_user_is_nobody_here(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Even where the two have one name; said in the log once, with the way out, however many ask."""
    asked, other = plugin_of(admin_guard=ContextRule(anybody)), plugin_of(name=name)
    app = UserContextMiddleware(asked.admin, plugin=other)
    for _ in range(5):
        assert (await ask(app, http_scope("/stats", user=ADA))).status == 401
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "needs UserContextMiddleware" in told[0]


async def test_a_rule_of_a_named_plugin_needs_no_name() -> None:
    """It is asked of the context of the plugin whose admin it guards."""
    plugin = plugin_of(name="other", admin_guard=ContextRule(anybody))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    assert (await ask(app, http_scope("/stats", user=ADA))).status == 200


async def test_an_excluded_admin_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is identified there, so nobody is let in, and the log says why."""
    plugin = plugin_of(admin_guard=ContextRule(anybody))
    app = UserContextMiddleware(plugin.admin, plugin=plugin, exclude=["/stats"])
    for _ in range(5):
        assert (await ask(app, http_scope("/stats", user=ADA))).status == 401
    assert caplog.text.count("take it out of the middleware's `exclude`") == 1


async def test_a_preflight_is_no_sign_of_an_excluded_admin(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is identified on one anywhere, and the log does not cry wolf."""
    plugin = plugin_of(admin_guard=ContextRule(anybody))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    headers = [(b"origin", b"https://app.example"), (b"access-control-request-method", b"POST")]
    assert (await ask(app, http_scope("/clear", method="OPTIONS", headers=headers))).status == 401
    assert "exclude" not in caplog.text


async def test_a_rule_that_fails_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may make it fail, as often as he likes, is told to wait, and is heard of no more."""

    def fails(context: Any) -> bool:
        raise RuntimeError("no such column")

    plugin = plugin_of(admin_guard=ContextRule(fails))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)
    for _ in range(100):
        await ask(app, http_scope("/stats", user=ADA))
    assert caplog.text.count("the admin's guard failed") == 20


async def anybody_later(context: object) -> bool:
    """Let everybody in, if it is awaited."""
    return True


class Later:
    """Lets everybody in, if it is awaited."""

    async def __call__(self, context: object) -> bool:
        return True


@pytest.mark.parametrize("rule", [anybody_later, Later()])
def test_an_async_rule_is_refused_at_once(rule: Any) -> None:
    """A coroutine is true, and is never awaited."""
    with pytest.raises(ConfigurationError, match="async function"):
        ContextRule(rule)


def forgets_to_await(context: object) -> Any:
    """Answer with a coroutine."""
    return anybody_later(context)


async def deep(connection: HTTPConnection) -> Any:
    """Answer with a coroutine, after an await."""
    return anybody_later(connection)


@pytest.mark.parametrize(
    "guard",
    [deep, lambda _: deep(_), ContextRule(forgets_to_await)],
    ids=["deep", "lambda", "rule"],
)
async def test_a_coroutine_that_nobody_awaits_lets_nobody_in(guard: Any) -> None:
    """And leaves no warning behind."""
    plugin = plugin_of(admin_guard=guard)
    answer = await ask(UserContextMiddleware(plugin.admin, plugin=plugin), http_scope("/stats", user=ADA))
    assert answer.status in (401, 403)


async def test_a_guard_that_never_answers_is_a_refusal() -> None:
    """After a time; a directory that hangs must not hold requests for good."""

    async def hangs(connection: HTTPConnection) -> bool:
        await anyio.sleep_forever()
        return True

    connection = HTTPConnection({"type": "http", "headers": []})
    assert await is_let_in(hangs, connection, timeout=0.05) is False


async def test_a_guard_that_cannot_say_whom_it_lets_in_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """A deed by nobody knows whom is not done, and no exception comes out."""

    class Nameless:
        def __call__(self, connection: HTTPConnection) -> bool:
            return True

        def user_of(self, connection: HTTPConnection) -> str:
            raise RuntimeError("the directory is down")

    answer = await ask(plugin_of(admin_guard=Nameless()).admin, http_scope("/stats"))
    assert answer.status == 401
    assert "cannot say whom it lets in" in caplog.text


@pytest.mark.parametrize("turned", [False, True])
async def test_any_of_several_lets_in(turned: bool) -> None:  # noqa: FBT001
    """The token from a shell, with nothing that is asked of browsers; a user from the site's own pages only."""
    rule: ContextRule[UserContext] = ContextRule(lambda each: each.email == ADA)
    guards = (BearerToken(TOKEN), rule)
    plugin = plugin_of(admin_guard=any_of(*(guards[::-1] if turned else guards)))
    app = UserContextMiddleware(plugin.admin, plugin=plugin)

    async def status(user: str | None, *headers: tuple[bytes, bytes]) -> int:
        scope = http_scope("/clear", user=user, method="POST")
        return (await ask(app, {**scope, "headers": [*scope["headers"], *headers]})).status

    assert await status(None, *AUTHORIZED) == 200
    assert await status(ADA, *AUTHORIZED) == 200
    assert await status(ADA) == 403
    assert await status(ADA, (b"x-requested-with", b"x")) == 200
    assert await status(BOB, (b"x-requested-with", b"x")) == 401
    assert await status(None, (b"authorization", b"Bearer wrong")) == 401
    told = (await ask(app, http_scope("/stats"))).json()["detail"]
    assert "send Authorization: Bearer" in told
    assert "sign in as a user" in told


async def test_one_that_fails_keeps_no_other_from_letting_in() -> None:
    """The token opens while the directory is down; nested or asked by hand, it is the same."""

    def fails(connection: HTTPConnection) -> bool:
        raise RuntimeError("the directory is down")

    guard = any_of(fails, any_of(fails, BearerToken(TOKEN)))
    plugin = plugin_of(admin_guard=guard)
    assert (await ask(plugin.admin, http_scope("/stats", headers=AUTHORIZED))).status == 200
    assert (await ask(plugin.admin, http_scope("/stats"))).status == 401
    # What the token lets in needs nothing that is asked of browsers, however deep it lies.
    assert (await ask(plugin.admin, http_scope("/clear", method="POST", headers=AUTHORIZED))).status == 200
    assert await guard(HTTPConnection({"type": "http", "headers": AUTHORIZED})) is True
    assert await guard(HTTPConnection({"type": "http", "headers": []})) is False
    assert TOKEN not in repr(guard)


@pytest.mark.parametrize("guards", [(), (TOKEN,), (BearerToken,), (None,)])
def test_any_of_no_guards_is_refused_at_once(guards: Any) -> None:
    """And a token that was meant to be one is not shown."""
    with pytest.raises(ConfigurationError, match="any_of got") as caught:
        any_of(*guards)
    assert TOKEN not in str(caught.value)


async def test_the_audit_log_names_the_user_who_was_identified(caplog: pytest.LogCaptureFixture) -> None:
    """By the subject where that is the key, whatever address the context holds."""
    caplog.set_level(logging.INFO, "ctxmiddleware.audit")
    identity = Identity(subject="admin-1", tenant="acme")
    source: StaticSource[UserContext] = StaticSource({identity: context_of(ADA)})
    plugin = ContextPlugin(
        source=source, identify=lambda scope: identity, admin_guard=any_of(ContextRule(anybody)), log_key="k" * 16
    )
    scope = http_scope("/clear", method="POST")
    scope["headers"] = [*scope["headers"], (b"x-requested-with", b"x")]
    async with plugin:
        assert (await ask(UserContextMiddleware(plugin.admin, plugin=plugin), scope)).status == 200
    (record,) = [record for record in caplog.records if record.name == "ctxmiddleware.audit"]
    assert record.actor == f"user {Pseudonyms('k' * 16).of(identity)}"  # type: ignore[attr-defined]  # extra


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (HTTPException(429, "slow down", {"Retry-After": "30"}), 429, {"retry-after": "30"}),
        (HTTPException(503, "not now", {"Retry-After": "7"}), 503, {"retry-after": "7"}),
        (HTTPException(503, "not now"), 503, {"retry-after": "1"}),
        (HTTPException(403, "no"), 403, {}),
        (HTTPException(499, "odd"), 499, {}),
        (HTTPException(401, "again", {"www-authenticate": "Basic"}), 401, {"www-authenticate": "Basic"}),
        (HTTPException(307, "sign in", {"Location": "/login"}), 307, {"location": "/login"}),
        (HTTPException(200, "no success"), 403, {}),
        (HTTPException(304, "nor this"), 403, {}),
        (SourceUnavailable("busy", retry_after=42), 503, {"retry-after": "42"}),
    ],
    ids=repr,
)
async def test_what_identify_answers_is_what_the_admin_answers(
    error: Exception,
    status: int,
    headers: dict[str, str],
    *,
    required: bool,
) -> None:
    """A 503 stays a 503 instead of a 401, and a refusal never has a status of success."""

    def identify(scope: Scope) -> Identity | None:
        raise error

    plugin = plugin_of(identify=identify, admin_guard=ContextRule(lambda context: True))
    app = Starlette(routes=[Mount("/admin", app=plugin.admin)])
    answer = await ask(UserContextMiddleware(app, plugin=plugin, required=required), http_scope("/admin/stats"))
    assert answer.status == status
    told = {name.lower(): value for name, value in answer.headers.items()}
    assert {name: told.get(name) for name in headers} == headers
    assert "www-authenticate" not in told or status == 401
    assert answer.json()["status"] == status


async def test_an_inner_middleware_refuses_with_what_identify_answered() -> None:
    """Where an outer one with the same plugin let the request through to a public endpoint's app."""

    def identify(scope: Scope) -> Identity | None:
        raise HTTPException(429, "slow down", {"Retry-After": "30"})

    plugin = plugin_of(identify=identify)
    inner = UserContextMiddleware(no_lifespan, plugin=plugin, required=True)

    async def resolved_before(scope: Scope, receive: Receive, send: Send) -> None:
        await inner({**scope, "path": "/me"}, receive, send)

    outer = UserContextMiddleware(Starlette(routes=[Mount("/admin", app=plugin.admin)]), plugin=plugin)
    scope = http_scope("/admin/stats")
    assert (await ask(outer, scope)).status == 403
    answer = await ask(resolved_before, scope)
    assert (answer.status, answer.headers["retry-after"]) == (429, "30")
