"""Which requests are left alone: those below an excluded path, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from ctxmiddleware import ConfigurationError, UserContextMiddleware
from ctxmiddleware.routing import checked_paths, is_excluded, relative_path

from .asgi import ask, http_scope, no_lifespan, websocket_scope
from .people import ADA, DOWN, plugin_of

PATHS = checked_paths(["/health", "/static/", "/a/b"])


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/health/",
        "/health/live",
        "/health/live/",
        "/static",
        "/static/x.css",
        "/a/b",
        "/a/b/c",
        "/health/..x",
    ],
)
def test_a_path_and_all_below_it_are_excluded(path: str) -> None:
    """A prefix frees itself and what lies below it, with and without a trailing slash."""
    assert is_excluded({"path": path}, PATHS)


@pytest.mark.parametrize(
    "path",
    [
        "/healthcare",
        "/healthz",
        "/Health",
        "/health.json",
        "/health;x",
        "/health ",
        "/health\x00",
        "//health",
        "/./health",
        "/x/../health",
        "/x/health",
        "/a",
        "/a/bc",
        "/a//b",
        "/",
        "",
        None,
        "health",
    ],
)
def test_what_only_looks_like_it_is_not(path: str | None) -> None:
    """A prefix ends at a segment's boundary and begins at the root."""
    assert not is_excluded({"path": path}, PATHS)


@pytest.mark.parametrize(
    "path",
    [
        "/health/../me",
        "/health/..",
        "/health/./../me",
        "/health/.",
        "/health//me",
        "/health//../me",
        "/health/x/../../me",
        "/health/..\\me",
        "/health/x\\..\\..\\me",
    ],
)
def test_a_path_that_another_app_would_read_differently_is_not_excluded(path: str) -> None:
    """Dot segments and empty ones lead elsewhere in an app that tidies paths, so they free nobody."""
    assert not is_excluded({"path": path}, PATHS)


@pytest.mark.parametrize(
    ("root", "path", "relative"),
    [
        ("", "/health", "/health"),
        (None, "/health", "/health"),
        ("/app", "/app/health", "/health"),
        ("/app", "/app", "/"),
        ("/app", "/app/", "/"),
        ("/app", "/application", "/application"),
        ("/app", "/health", "/health"),
        ("/app/", "/app//health", "/health"),
        ("/health", "/health/me", "/me"),
        ("/health", "/health", "/"),
    ],
)
def test_a_path_is_read_below_the_root_path(root: str | None, path: str, relative: str) -> None:
    """Where the app is mounted is no part of its own paths: an app mounted at /health is not freed by that."""
    scope = {"path": path, "root_path": root}
    assert relative_path(scope) == relative
    begins_with_it = path.startswith(root or "")
    assert is_excluded(scope, PATHS) == (relative == "/health" and begins_with_it)


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("/api", "/health"),
        ("/api", "/health/api/secret"),
        ("/api", "/api/health/api/secret"),
        ("/api", "/api/health/apiary"),
        ("/api", "/api/health/api"),
        ("/api", "/apihealth"),
        ("/api/", "/api/health"),
        ("/", "/health"),
        ("/health", "/health/health"),
        ("api", "/health"),
    ],
)
def test_nothing_is_excluded_where_the_root_path_has_two_readings(root: str, path: str) -> None:
    """Litestar reads what follows its first occurrence, Starlette the whole path where it does not begin with it."""
    assert not is_excluded({"path": path, "root_path": root}, PATHS)


def test_exclude_without_effect_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An operator whose health checks are refused finds the reason and the way out."""
    client = TestClient(
        UserContextMiddleware(no_lifespan, plugin=plugin_of(), required=True, exclude=["/health"]), root_path="/api"
    )
    assert client.get("/other").status_code == 401
    assert "exclude" not in caplog.text
    assert [client.get("/health").status_code for _ in range(3)] == [401] * 3
    (record,) = [each for each in caplog.records if each.name != "ctxmiddleware.refusals"]
    assert "exclude has no effect" in record.getMessage()
    assert "keep the prefix" in record.getMessage()


def rewriting(**changes: str) -> Callable[[ASGIApp], ASGIApp]:
    """Return a middleware that changes the scope."""

    def around(app: ASGIApp) -> ASGIApp:
        async def changed(scope: Scope, receive: Receive, send: Send) -> None:
            scope.update(changes)
            await app(scope, receive, send)

        return changed

    return around


async def secret(request: Request) -> Response:
    """Answer with what is not for all."""
    return PlainTextResponse("secret")


async def secret_socket(websocket: WebSocket) -> None:
    """Say what is not for all."""
    await websocket.accept()
    await websocket.send_text("secret")
    await websocket.close()


def _mounted() -> ASGIApp:
    return Starlette(routes=[Mount("/health", routes=[Route("/{rest:path}", secret)])])


REREAD: dict[str, tuple[ASGIApp, dict[str, str]]] = {
    "path": (Starlette(routes=[Route("/secret", secret)]), {"path": "/secret"}),
    "root path": (Starlette(routes=[Route("/live", secret)]), {"root_path": "/health"}),
    "path to a mount": (Starlette(routes=[Mount("/m", routes=[Route("/health/x", secret)])]), {"path": "/m/health/x"}),
    "both": (Starlette(routes=[Route("/secret", secret)]), {"path": "/v1/secret", "root_path": "/v1"}),
}


@pytest.mark.parametrize("case", REREAD)
def test_an_excluded_answer_is_held_back_where_the_path_was_rewritten(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A middleware inside that changes the path leads an anonymous request to no other endpoint."""
    app, changes = REREAD[case]
    inner = rewriting(**changes)(app)
    middleware = UserContextMiddleware(inner, plugin=plugin_of(), required=True, exclude=["/health"])
    client = TestClient(middleware)
    answer = client.get("/health/live")
    assert (answer.status_code, "secret" in answer.text) == (401, False)
    assert ["rewrite paths outside" in record.getMessage() for record in caplog.records] == [True]


def test_a_websocket_is_held_back_too() -> None:
    """It is refused before it opens."""
    inner = rewriting(path="/secret")(Starlette(routes=[WebSocketRoute("/secret", secret_socket)]))
    client = TestClient(UserContextMiddleware(inner, plugin=plugin_of(), required=True, exclude=["/health"]))
    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/health"):
        raise AssertionError("opened")
    assert caught.value.status_code == 401


def excluding(app: ASGIApp, path: str) -> ASGIApp:
    """Return an app in a middleware that requires a context elsewhere."""
    return UserContextMiddleware(app, plugin=plugin_of(), required=True, exclude=[path])


READ_LIKEWISE: dict[str, tuple[ASGIApp, str]] = {
    "a mount": (excluding(_mounted(), "/health"), "/health/a/b"),
    "a path in a mount": (excluding(_mounted(), "/health/a"), "/health/a/b"),
    "in a mount": (Starlette(routes=[Mount("/outer", app=excluding(_mounted(), "/health"))]), "/outer/health/a"),
    "rewritten to another excluded path": (excluding(rewriting(path="/health/b")(_mounted()), "/health"), "/health/a"),
    "a root path that is set inside": (
        excluding(rewriting(root_path="/api")(Starlette(routes=[Route("/health", secret)])), "/health"),
        "/health",
    ),
    "a path of no route": (excluding(Starlette(), "/health"), "/health"),
}


@pytest.mark.parametrize("case", READ_LIKEWISE)
def test_an_excluded_path_that_is_routed_as_it_was_read_passes(case: str) -> None:
    """A mount moves what it has matched into the root path."""
    app, path = READ_LIKEWISE[case]
    assert TestClient(app).get(path).status_code == (404 if case == "a path of no route" else 200)


def test_the_root_alone_can_be_excluded() -> None:
    """The path `/` frees the root, and neither everything below it nor what begins with two slashes."""
    paths = checked_paths(["/"])
    assert is_excluded({"path": "/"}, paths)
    assert not is_excluded({"path": "/me"}, paths)
    assert not is_excluded({"path": "//me"}, paths)


@pytest.mark.parametrize("exclude", ["/health", ["health"], [""], [None], [b"/health"], ["/ok", "bad", "worse"]])
def test_what_is_not_a_path_is_refused_when_the_middleware_is_built(exclude: Any) -> None:
    """A string in place of a list, or a path without its slash, would free nobody or everybody."""
    with pytest.raises(ConfigurationError, match="exclude"):
        UserContextMiddleware(no_lifespan, plugin=plugin_of(), exclude=exclude)


def test_every_bad_path_is_named() -> None:
    """All faults are told at once."""
    with pytest.raises(ConfigurationError, match=r"(?s)bad.*worse"):
        checked_paths(["/ok", "bad", "worse"])


@pytest.mark.anyio
async def test_nobody_is_identified_on_an_excluded_path() -> None:
    """Identifying, which may cost or fail, is not done there, and the app is told why there is no context."""

    def identify(scope: Scope) -> None:
        raise AssertionError("identified")

    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(identify=identify), required=True, exclude=["/health"])
    for user in (None, ADA, DOWN):
        scope = http_scope("/health", user=user)
        assert (await ask(app, scope)).status == 200
        assert scope["user_context"] is None
        assert scope["user_context_refusal"] == "excluded"
    assert (await ask(app, http_scope("/healthcare"))).status == 500
    assert (await ask(app, websocket_scope("/healthcare"))).kinds == ["websocket.close"]


@pytest.mark.parametrize("path", ["/static/*", "/*", "*", "/a*b"])
def test_a_wildcard_is_refused(path: str) -> None:
    """It would be taken for a letter and exclude nothing."""
    with pytest.raises(ConfigurationError, match=r"no wildcards|starts with '/'"):
        checked_paths([path])
