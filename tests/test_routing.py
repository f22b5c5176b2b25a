"""Which requests are left alone: those below an excluded path, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Scope

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
    assert is_excluded(scope, PATHS) == (relative == "/health")


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
