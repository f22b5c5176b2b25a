"""What a request gets: its context, or the refusal that its case calls for."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from ctxmiddleware import (
    ConfigurationError,
    Identify,
    Identity,
    SourceUnavailable,
    UserContext,
    UserContextMiddleware,
    current_user_context,
    user_context_from_scope,
)
from ctxmiddleware.testing import StaticSource

from .asgi import ask, http_scope, must_not_receive, no_lifespan, websocket_scope
from .people import (
    ADA,
    BOB,
    BROKEN,
    DOWN,
    GONE,
    MALFORMED,
    NOBODY,
    by_header,
    by_header_later,
    context_of,
    known,
    plugin_of,
)

pytestmark = pytest.mark.anyio

REQUIRED = [False, True]


def app_of(**options: Any) -> UserContextMiddleware:
    """Return an app that answers with the user's address, in the middleware."""
    plugin = options.pop("plugin", None) or plugin_of()
    return UserContextMiddleware(no_lifespan, plugin=plugin, **options)


@pytest.mark.parametrize("identify", [by_header, by_header_later])
@pytest.mark.parametrize("required", REQUIRED)
async def test_an_identified_request_gets_its_context(required: bool, identify: Identify) -> None:  # noqa: FBT001
    """A known user's context is on the scope, whether identify is sync or async, on a miss and on a hit."""
    source = StaticSource(known())
    app = app_of(plugin=plugin_of(source, identify), required=required)
    for _ in range(2):
        scope = http_scope(user=" Ada@Example.COM ")
        assert (await ask(app, scope)).json() == ADA
        assert scope["user_context"] == scope["state"]["user_context"] == context_of(ADA)
        assert "user_context_refusal" not in scope
    assert len(source.calls) == 1


@pytest.mark.parametrize(
    ("user", "reason", "status"), [(None, "anonymous", 401), (NOBODY, "unknown", 403), (GONE, "inactive", 403)]
)
async def test_without_a_context_a_request_is_refused_only_where_one_is_required(
    user: str | None, reason: str, status: int
) -> None:
    """Anonymous, unknown and inactive requests go on with None and a reason, or are refused with 401 and 403."""
    for _ in range(2):
        scope = http_scope(user=user)
        answer = await ask(app_of(), scope)
        assert (answer.status, answer.json()) == (200, None)
        assert scope["user_context"] is None
        assert scope["state"] == {"user_context": None}
        assert scope["user_context_refusal"] == reason
        refused = await ask(app_of(required=True), http_scope(user=user))
        assert (refused.status, refused.json()["reason"]) == (status, reason)
        assert refused.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


@pytest.mark.parametrize("required", REQUIRED)
async def test_an_identified_request_never_becomes_anonymous(required: bool) -> None:  # noqa: FBT001
    """With nothing known and the source down it is a 503 that says when to come again, required or not."""
    answer = await ask(app_of(required=required), http_scope(user=DOWN))
    assert answer.status == 503
    assert answer.headers["retry-after"] == "8"
    assert b"down" not in answer.body


@pytest.mark.parametrize("required", REQUIRED)
@pytest.mark.parametrize("user", [BROKEN, MALFORMED])
async def test_a_broken_installation_is_a_500_that_tells_nothing(
    user: str,
    required: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An internal error is in the log in one line, and not in the answer."""
    answer = await ask(app_of(required=required), http_scope(user=user))
    assert answer.status == 500
    assert answer.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "reason": "failed",
    }
    (record,) = [record for record in caplog.records if record.name == "ctxmiddleware.refusals"]
    assert record.levelno == logging.ERROR
    assert "hr.secret is missing" in record.message or "employees.id held" in record.message
    assert record.exc_info is None
    assert user not in caplog.text


def raises(scope: Scope) -> Identity | None:
    """Fail at identifying."""
    raise LookupError("the session store's password is hunter2")


async def raises_later(scope: Scope) -> Identity | None:
    """Fail at identifying, after an await."""
    return raises(scope)


NONSENSE: list[object] = [ADA, {"email": ADA}, "", 0, False, Identity, []]


def answers(value: object) -> Any:
    """Return an identify that answers with this."""
    return lambda scope: value


@pytest.mark.parametrize(
    "identify",
    [
        raises,
        raises_later,
        *(answers(value) for value in NONSENSE),
    ],
)
async def test_an_identify_that_fails_or_answers_nonsense_is_a_500(
    identify: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody becomes anonymous because identifying went wrong."""
    answer = await ask(app_of(plugin=plugin_of(identify=identify)), http_scope(user=ADA))
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert "Traceback" in caplog.text


async def test_an_identify_that_later_says_nobody_makes_an_anonymous_request() -> None:
    """An async identify may answer None too."""
    scope = http_scope()
    await ask(app_of(plugin=plugin_of(identify=by_header_later)), scope)
    assert scope["user_context_refusal"] == "anonymous"


async def test_an_is_active_that_fails_is_a_500() -> None:
    """Who may not be active is not let in because nobody could tell."""

    def is_active(context: UserContext) -> bool:
        raise KeyError(context.employee.id)

    assert (await ask(app_of(plugin=plugin_of(is_active=is_active)), http_scope(user=ADA))).status == 500


@pytest.mark.parametrize("verdict", [anyio.Event(), "yes", None, 1], ids=lambda verdict: type(verdict).__name__)
async def test_an_is_active_without_a_plain_yes_lets_nobody_in(verdict: object) -> None:
    """An awaitable that nobody awaits is true, and so is a word: only a bool is a verdict, anything else is a 500."""
    answer = await ask(app_of(plugin=plugin_of(is_active=lambda _: verdict)), http_scope(user=ADA))
    assert answer.status == 500


@pytest.mark.parametrize(("length", "asked"), [(320, 1), (321, 0), (100_000, 0)])
async def test_what_is_too_long_for_an_address_is_unknown_and_nobody_is_asked(length: int, asked: int) -> None:
    """Whoever sends identities of any size fills neither the queue at the source nor memory."""
    source = StaticSource(known())
    email = ADA.rjust(length, "a")
    answer = await ask(app_of(plugin=plugin_of(source), required=True), http_scope(user=f"  {email} "))
    assert (answer.status, answer.json()["reason"]) == (403, "unknown")
    assert len(source.calls) == asked


async def test_is_active_can_be_the_users_own() -> None:
    """What active means is the application's to say."""
    app = app_of(plugin=plugin_of(is_active=lambda context: context.email != ADA), required=True)
    assert (await ask(app, http_scope(user=ADA))).status == 403
    assert (await ask(app, http_scope(user=GONE))).status == 200


@pytest.mark.parametrize(
    "options",
    [
        {"source": StaticSource},
        {"source": object()},
        {"source": None},
        {"identify": "x-user"},
        {"is_active": by_header_later},
        {"name": "a b"},
        {"name": ""},
        {"encryption_keys": ["key"]},
    ],
)
def test_a_plugin_that_cannot_work_is_not_built(options: dict[str, Any]) -> None:
    """What can be seen to be wrong is said when the plugin is built, not at the first request."""
    from ctxmiddleware import ContextPlugin

    with pytest.raises(ConfigurationError, match=next(iter(options)).split("_")[0]):
        ContextPlugin(**{"source": StaticSource(known()), **options})


async def test_a_broken_environment_refuses_every_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no lifespan runs, every request is a 500 and the log names the variables."""
    monkeypatch.setenv("CTX_TTL", "soon")
    monkeypatch.setenv("DB_MAX_CONNECTIONS", "many")
    app = UserContextMiddleware(no_lifespan, exclude=["/health"])
    for scope in (http_scope(user=ADA), http_scope(), http_scope("/health")):
        answer = await ask(app, scope)
        assert answer.status == 500
        assert b"CTX_TTL" not in answer.body
    assert (await ask(app, websocket_scope())).kinds == ["websocket.close"]
    assert "CTX_TTL" in caplog.text
    assert "DB_MAX_CONNECTIONS" in caplog.text


async def test_a_good_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """`UserContextMiddleware(app)` reads the environment by itself."""
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SUPABASE_KEY", "sb_secret_of-a-test")
    scope = http_scope()
    assert (await ask(UserContextMiddleware(no_lifespan), {**scope, "user": None})).json() is None


async def test_other_scope_types_pass_through() -> None:
    """What is neither http nor websocket nor lifespan is none of the middleware's business."""
    seen: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    async def send(message: object) -> None:
        raise AssertionError(message)

    scope = {"type": "webtransport"}
    await UserContextMiddleware(app, plugin=plugin_of())(scope, must_not_receive, send)
    assert seen == [(scope, must_not_receive, send)]
    assert scope == {"type": "webtransport"}


@pytest.mark.parametrize("scope_of", [http_scope, websocket_scope])
async def test_the_app_gets_the_hosts_own_scope_receive_and_send(scope_of: Any) -> None:
    """Nothing is wrapped or copied: outer middlewares see what the app wrote on the scope."""
    seen: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))
        scope["route"] = "the route"
        scope["state"]["mine"] = 1

    async def send(message: object) -> None:
        raise AssertionError(message)

    state: dict[str, Any] = {}
    scope = scope_of(user=ADA, state=state)
    await UserContextMiddleware(app, plugin=plugin_of())(scope, must_not_receive, send)
    assert [(id(a), b, c) for a, b, c in seen] == [(id(scope), must_not_receive, send)]
    assert scope["route"] == "the route"
    assert scope["state"] is state
    assert state == {"user_context": context_of(ADA), "mine": 1}


async def test_the_context_variable_is_set_for_the_app_and_reset_after_it() -> None:
    """`current_user_context` is the request's inside the app and in what it awaits, and nobody's after it."""
    seen: list[UserContext | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(current_user_context())
        assert user_context_from_scope(scope) is current_user_context()
        if scope["path"] == "/fails":
            raise KeyError

    middleware = UserContextMiddleware(app, plugin=plugin_of())
    await ask(middleware, http_scope(user=ADA))
    await ask(middleware, http_scope(user=NOBODY))
    with pytest.raises(KeyError):
        await ask(middleware, http_scope("/fails", user=BOB))
    assert seen == [context_of(ADA), None, context_of(BOB, number=2)]
    assert current_user_context() is None


async def test_an_anonymous_request_inside_another_hides_the_others_context() -> None:
    """A request served within another's task does not see the outer one's user."""
    plugin = plugin_of()

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        assert current_user_context() is None

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        await ask(UserContextMiddleware(inner, plugin=plugin), http_scope())
        assert current_user_context() == context_of(ADA)

    await ask(UserContextMiddleware(outer, plugin=plugin), http_scope(user=ADA))


async def test_what_became_of_requests_is_counted() -> None:
    """The statistics tell served, refused and anonymous requests apart."""
    plugin = plugin_of()
    app = app_of(plugin=plugin, required=True, exclude=["/health"])
    for scope in (http_scope(user=ADA), http_scope(user=ADA), http_scope(user=NOBODY), http_scope("/health")):
        await ask(app, scope)
    await ask(app_of(plugin=plugin), http_scope())
    assert plugin.stats().requests == {"anonymous": 1, "excluded": 1, "refused": 1, "served": 2}


async def test_an_outage_is_a_warning_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A passing fault is told in one line, with the wait the source asked for."""
    await ask(app_of(), http_scope(user=DOWN))
    (record,) = [record for record in caplog.records if record.name == "ctxmiddleware.refusals"]
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert vars(record)["retry_after"] == 7.2


@pytest.mark.parametrize("retry_after", [None, 0.0, -3.0, float("inf"), float("nan")])
async def test_a_strange_retry_after_is_a_second(retry_after: float | None) -> None:
    """Whatever wait a source names, the answer holds a number that clients can read."""
    source = StaticSource[UserContext]({ADA: SourceUnavailable("down", retry_after=retry_after)})
    answer = await ask(app_of(plugin=plugin_of(source)), http_scope(user=ADA))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_a_source_that_raises_anything_is_a_500() -> None:
    """An error of the source's own making is no answer, and no anonymous request."""

    class Odd(StaticSource[UserContext]):
        async def fetch(self, identity: Identity) -> Any:
            raise ZeroDivisionError

    assert (await ask(app_of(plugin=plugin_of(Odd(known()))), http_scope(user=ADA))).status == 500
