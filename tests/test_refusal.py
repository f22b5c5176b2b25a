"""In which form a request is refused, on http and on websockets, and how an application shapes it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ctxmiddleware import BadCredential, ContextPlugin, Identity, Loaded, UserContextMiddleware
from ctxmiddleware.refusal import FAILED, denial_for, unavailable
from ctxmiddleware.testing import StaticSource

from .asgi import ask, http_scope, no_lifespan, websocket_scope
from .people import ADA, BROKEN, DOWN, GONE, NOBODY, as_user, plugin_of

pytestmark = pytest.mark.anyio

DENIAL: dict[str, object] = {"websocket.http.response": {}}
CASES = [
    (None, 401, "anonymous", 1008),
    (NOBODY, 403, "unknown", 1008),
    (GONE, 403, "inactive", 1008),
    (DOWN, 503, "unavailable", 1013),
    (BROKEN, 500, "failed", 1011),
]


def app_of(on_refusal: Any = None) -> UserContextMiddleware:
    """Return an app behind a middleware that requires a context."""
    return UserContextMiddleware(no_lifespan, plugin=plugin_of(), required=True, on_refusal=on_refusal)


@pytest.mark.parametrize(("user", "status", "reason", "code"), CASES)
async def test_http_is_refused_with_problem_details(user: str | None, status: int, reason: str, code: int) -> None:
    """The answer is RFC 9457's, complete and of the length it says."""
    answer = await ask(app_of(), http_scope(user=user))
    assert answer.kinds == ["http.response.start", "http.response.body"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.body)
    body = answer.json()
    assert (body["status"], body["reason"]) == (answer.status, reason) == (status, reason)


@pytest.mark.parametrize(("user", "status", "reason", "code"), CASES)
async def test_a_websocket_is_refused_with_a_response_where_the_host_can(
    user: str | None, status: int, reason: str, code: int
) -> None:
    """With the denial extension the client gets the same answer as on http, in the websocket's own messages."""
    answer = await ask(app_of(), websocket_scope(user=user, extensions=DENIAL))
    assert answer.kinds == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (answer.status, answer.json()["reason"]) == (status, reason)
    assert answer.headers == (await ask(app_of(), http_scope(user=user))).headers


@pytest.mark.parametrize("extensions", [{}, None, {"extensions": None}, {"extensions": {}}])
@pytest.mark.parametrize(("user", "status", "reason", "code"), CASES)
async def test_a_websocket_is_closed_before_it_opens_where_the_host_cannot(
    user: str | None, status: int, reason: str, code: int, extensions: Any
) -> None:
    """Without the extension the handshake is refused by a close, whose code tells the case."""
    answer = await ask(app_of(), websocket_scope(user=user, **(extensions or {})))
    assert answer.sent == [{"type": "websocket.close", "code": code, "reason": ""}]


def plain(connection: HTTPConnection, reason: str) -> Response:
    """Answer a refusal in the application's own words."""
    return PlainTextResponse(f"{connection.url.path} {reason}", 418, {"x-mine": "yes"})


async def plain_later(connection: HTTPConnection, reason: str) -> Response:
    """Do the same as an async function."""
    return plain(connection, reason)


@pytest.mark.parametrize("on_refusal", [plain, plain_later])
@pytest.mark.parametrize(("user", "status", "reason", "code"), CASES)
async def test_an_application_answers_in_its_own_words(
    user: str | None, status: int, reason: str, code: int, on_refusal: Callable[..., Any]
) -> None:
    """The hook is called with the connection and the reason, and its response is what the client gets."""
    answer = await ask(app_of(on_refusal), http_scope("/me", user=user, server=("test", 80)))
    assert (answer.status, answer.body.decode(), answer.headers["x-mine"]) == (418, f"/me {reason}", "yes")
    denied = await ask(app_of(on_refusal), websocket_scope("/me", user=user, extensions=DENIAL, server=("test", 80)))
    assert denied.kinds[0] == "websocket.http.response.start"
    assert (denied.status, denied.body) == (418, answer.body)
    closed = await ask(app_of(on_refusal), websocket_scope("/me", user=user, server=("test", 80)))
    assert closed.sent == [{"type": "websocket.close", "code": code, "reason": ""}]


async def _none_later(connection: HTTPConnection, reason: str) -> None:
    """Say nothing, after an await."""


def _raises(connection: HTTPConnection, reason: str) -> Response:
    """Fail."""
    raise KeyError("template")


async def _raises_later(connection: HTTPConnection, reason: str) -> Response:
    """Fail, after an await."""
    raise KeyError("template")


@pytest.mark.parametrize("on_refusal", [lambda connection, reason: None, _none_later])
async def test_a_hook_that_says_nothing_leaves_the_answer_as_it_is(on_refusal: Any) -> None:
    """None stands for the answer that would have been given."""
    answer = await ask(app_of(on_refusal), http_scope())
    assert (answer.status, answer.json()["reason"]) == (401, "anonymous")


@pytest.mark.parametrize(
    "on_refusal", [_raises, _raises_later, lambda connection, reason: {"status": 200}, lambda connection: None]
)
async def test_a_hook_that_fails_changes_nothing_but_the_log(on_refusal: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A broken hook neither lets anybody in nor turns a 401 into a 500."""
    answer = await ask(app_of(on_refusal), http_scope())
    assert (answer.status, answer.json()["reason"]) == (401, "anonymous")
    (record,) = [record for record in caplog.records if record.name == "ctxmiddleware.middleware"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


async def test_a_hooks_background_task_runs() -> None:
    """The response of a hook is a whole one."""
    ran: list[str] = []
    answer = await ask(
        app_of(lambda connection, reason: Response(status_code=204, background=BackgroundTask(ran.append, reason))),
        http_scope(),
    )
    assert answer.status == 204
    assert ran == ["anonymous"]


async def test_a_hook_may_answer_with_any_app() -> None:
    """What answers need not be Starlette's; on a websocket its messages become the websocket's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 402, "headers": []})
        await send({"type": "http.response.body", "body": b"pay"})

    for scope, prefix in ((http_scope(), ""), (websocket_scope(extensions=DENIAL), "websocket.")):
        answer = await ask(app_of(lambda connection, reason: app), scope)
        assert answer.kinds == [f"{prefix}http.response.start", f"{prefix}http.response.body"]
        assert (answer.status, answer.body) == (402, b"pay")


async def test_a_hook_is_not_called_for_who_is_served() -> None:
    """Only refusals are shaped."""
    assert (await ask(app_of(_raises), http_scope(user=ADA))).status == 200


def test_a_streamed_denial_reaches_a_websockets_client() -> None:
    """Through a real host's extension, even a streamed response of the hook arrives whole."""
    client = TestClient(
        app_of(lambda connection, reason: StreamingResponse(iter(["no ", reason]), 402)), raise_server_exceptions=True
    )
    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/me"):
        raise AssertionError("let in")
    assert (caught.value.status_code, caught.value.text) == (402, "no anonymous")


async def _echo(websocket: WebSocket) -> None:
    """Accept, and say who it is."""
    await websocket.accept()
    await websocket.send_json(websocket.scope["user_context"].email)
    await websocket.close()


def test_a_websocket_is_served_or_refused_through_a_host() -> None:
    """A known user's websocket opens, with the context on its scope; another's is refused with its status."""
    app = Starlette(routes=[WebSocketRoute("/me", _echo)])
    app.add_middleware(UserContextMiddleware, plugin=plugin_of(), required=True)
    client = TestClient(app)
    with client.websocket_connect("/me", headers=as_user(ADA)) as websocket:
        assert websocket.receive_json() == ADA
    for user, status, reason, _ in CASES:
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("/me", headers=as_user(user)),
        ):
            raise AssertionError("let in")
        assert (caught.value.status_code, caught.value.json()["reason"]) == (status, reason)


def test_a_websocket_without_the_extension_is_closed_by_a_host() -> None:
    """A host that knows no denial closes the handshake."""
    app = app_of()

    async def without_extension(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    with pytest.raises(WebSocketDisconnect) as caught, TestClient(without_extension).websocket_connect("/me"):
        raise AssertionError("let in")
    assert caught.value.code == 1008


@pytest.mark.parametrize(("retry_after", "told"), [(None, "1"), (0.2, "1"), (2.0, "2"), (2.01, "3"), (120, "120")])
def test_a_wait_is_told_in_whole_seconds_and_never_too_short(retry_after: float | None, told: str) -> None:
    """`Retry-After` is rounded up, and at least a second."""
    assert unavailable(retry_after).headers == {"Retry-After": told}


def test_a_failure_is_never_a_401() -> None:
    """Only who is anonymous is told to sign in."""
    assert [denial_for(reason).status for reason in ("anonymous", "excluded", "unknown", "inactive")] == [
        401,
        401,
        403,
        403,
    ]
    assert denial_for("unavailable") == unavailable(None)
    assert denial_for("failed") is FAILED


@pytest.mark.parametrize("required", [True, False])
async def test_a_bad_credential_that_is_to_be_refused_is_a_401(required: bool) -> None:  # noqa: FBT001
    """Whether a context is required or not; the client learns that its token is no good, and nothing more."""

    def identify(scope: Scope) -> None:
        raise BadCredential("it has expired")

    for later in (False, True):

        async def identify_later(scope: Scope) -> None:
            identify(scope)

        plugin = plugin_of(identify=identify_later if later else identify)
        app = UserContextMiddleware(no_lifespan, plugin=plugin, required=required)
        answer = await ask(app, http_scope(user=ADA))
        assert (answer.status, answer.json()["reason"]) == (401, "anonymous")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert b"expired" not in answer.body
        answer = await ask(app, websocket_scope(user=ADA, extensions=DENIAL))
        assert answer.status == 401
        assert plugin.stats().requests["refused"] == 2


async def test_a_bad_credential_is_remembered_as_nothing() -> None:
    """The next request with a good one is served, whatever came before it."""
    answers: list[Identity | BadCredential | None] = [BadCredential("odd"), Identity(ADA), None, Identity(ADA)]

    def identify(scope: Scope) -> Identity | None:
        answer = answers.pop(0)
        if isinstance(answer, BadCredential):
            raise answer
        return answer

    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(identify=identify), required=True)
    assert [(await ask(app, http_scope())).status for _ in range(4)] == [401, 200, 401, 200]


@pytest.mark.anyio
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("status", [401, 402, 429, 499])
async def test_an_http_exception_of_identify_is_answered_as_it_is(required: bool, status: int) -> None:  # noqa: FBT001 - a parameter of the test
    """With its status, its detail and its headers, whether contexts are required or not."""

    def identify(scope: Scope) -> Identity | None:
        raise HTTPException(status, "pay first", headers={"X-Plan": "free"})

    plugin = ContextPlugin(source=StaticSource({}), context_type=str, identify=identify)
    app = UserContextMiddleware(PlainTextResponse("inside"), plugin=plugin, required=required)
    answer = await ask(app, http_scope("/"))
    assert (answer.status, answer.headers["x-plan"]) == (status, "free")
    body = json.loads(answer.body)
    assert (body["detail"], body["reason"], body["status"]) == ("pay first", "rejected", status)


async def test_an_http_exception_of_a_source_is_a_failure() -> None:
    """Its detail is not meant for who asks."""

    class Leaking(StaticSource[str]):
        async def fetch(self, identity: Identity) -> Loaded[str]:
            raise HTTPException(404, "SELECT of a secret")

    plugin = ContextPlugin(source=Leaking({}), context_type=str, identify=lambda scope: Identity("ada@example.com"))
    answer = await ask(UserContextMiddleware(PlainTextResponse("inside"), plugin=plugin), http_scope("/"))
    assert (answer.status, json.loads(answer.body)["reason"], b"secret" in answer.body) == (500, "failed", False)


async def test_an_http_exception_cannot_make_its_answer_storable_or_unreadable() -> None:
    """It is problem details that nobody stores, whatever the exception's headers say."""

    def identify(scope: Scope) -> Identity | None:
        headers = {"cache-control": "public, max-age=600", "content-type": "text/html", "Content-Length": "1"}
        raise HTTPException(403, "no", headers=headers)

    plugin = ContextPlugin(source=StaticSource({}), context_type=str, identify=identify)
    answer = await ask(UserContextMiddleware(PlainTextResponse("inside"), plugin=plugin), http_scope("/"))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["detail"] == "no"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_http_exception_without_a_body_is_answered_without(status: int) -> None:
    """As its status demands."""

    def identify(scope: Scope) -> Identity | None:
        raise HTTPException(status)

    plugin = ContextPlugin(source=StaticSource({}), context_type=str, identify=identify)
    answer = await ask(UserContextMiddleware(PlainTextResponse("inside"), plugin=plugin), http_scope("/"))
    assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize(
    ("detail", "told"), [({"a"}, "{'a'}"), ({"why": [1]}, {"why": [1]}), (math.nan, "nan"), ("\ud800", "?")]
)
async def test_a_detail_that_json_cannot_write_is_told_as_text(detail: Any, told: object) -> None:
    """FastAPI's may be anything."""

    def identify(scope: Scope) -> Identity | None:
        raise HTTPException(403, detail)

    plugin = ContextPlugin(source=StaticSource({}), context_type=str, identify=identify)
    answer = await ask(UserContextMiddleware(PlainTextResponse("inside"), plugin=plugin), http_scope("/"))
    assert (answer.status, json.loads(answer.body)["detail"]) == (403, told)
