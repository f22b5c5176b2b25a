"""Which requests a line of the log speaks of, and that no line hides another or repeats a request's text."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from joserfc.jwk import OctKey
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import BadCredential, BearerJWT, Identity, SourceUnavailable, UserContextMiddleware, first_of, public
from ctxmiddleware.failure_log import reason_of
from ctxmiddleware.refusals import Cause, Refusals
from ctxmiddleware.stats import Counters

from .asgi import ask, http_scope, no_lifespan
from .identity.issuer import ISSUER, NOW, OCT, SECRET, signed, wall_clock
from .people import DOWN, by_header, plugin_of

OTHER_SECRET = "another secret of more than 32 bytes, for HS256"


async def page(request: Request) -> Response:
    """Answer."""
    return PlainTextResponse("page")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines that an operator reads."""
    records = [record for record in caplog.records if record.name == "ctxmiddleware.refusals"]
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


def raising(first: Exception, other: Exception) -> Callable[[Scope], Identity | None]:
    """Return a way that raises one error, and another on the path /other."""

    def identify(scope: Scope) -> Identity | None:
        raise other if scope["path"] == "/other" else first

    return identify


@pytest.mark.anyio
async def test_a_line_counts_the_requests_of_its_own_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Fifty of one exception are none of the other."""
    plugin = plugin_of(identify=raising(ValueError("a"), LookupError("b")))
    app = UserContextMiddleware(no_lifespan, plugin=plugin)
    for path in ["/"] * 50 + ["/other"]:
        await ask(app, http_scope(path))
    assert [line.split(" request")[0] for line in told(caplog)] == ["no context for 1", "no context for 1"]


@pytest.mark.anyio
async def test_admitted_anonymous_requests_are_in_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """Where no context is required they are no refusal."""
    plugin = plugin_of()
    for required in [False] * 20 + [True]:
        await ask(UserContextMiddleware(no_lifespan, plugin=plugin, required=required), http_scope())
    assert [line.split(" request")[0] for line in told(caplog)] == ["no context for 1"]
    assert plugin.stats().refusals == {"anonymous": 21}


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["signature", "credential"])
async def test_a_hint_does_not_hide_another_of_its_label(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two ways with the same fault have two lines."""
    first, other = (BadCredential(text, fault=fault) for text in ("compare A", "compare B"))  # type: ignore[arg-type]  # a word of those
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(identify=raising(first, other)), required=True)
    for path in ("/", "/other", "/", "/other"):
        await ask(app, http_scope(path))
    assert ["compare A" in line for line in told(caplog)] == [True, False]


@pytest.mark.anyio
async def test_the_outage_of_a_key_set_does_not_hide_that_of_the_source(caplog: pytest.LogCaptureFixture) -> None:
    """Both are 503, and an operator has to know of each."""

    def identify(scope: Scope) -> Identity | None:
        if scope["path"] == "/":
            raise SourceUnavailable("the keys of tokens cannot be fetched")
        return by_header(scope)

    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(identify=identify))
    for path in ("/", "/me", "/"):
        await ask(app, http_scope(path, user=DOWN))
    assert len(told(caplog)) == 2


@pytest.mark.anyio
async def test_one_issuers_tokens_do_not_hide_anothers(caplog: pytest.LogCaptureFixture) -> None:
    """A forged token of the first says nothing of the second, whose audience is wrong for all users."""
    second = BearerJWT(
        secret=OTHER_SECRET, issuer="https://other.example", audience="theirs", wall_clock=wall_clock, on_bad="refuse"
    )
    ways = first_of(BearerJWT(secret=SECRET, issuer=ISSUER, wall_clock=wall_clock, on_bad="refuse"), second)
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(identify=ways), required=True)
    mine = signed(OCT, "HS256", aud="mobile", exp=NOW + 60)
    theirs = signed(OctKey.import_key(OTHER_SECRET), "HS256", iss="https://other.example", aud="wrong", exp=NOW + 60)
    for token in (mine, theirs, theirs):
        await ask(app, {**http_scope(), "headers": [(b"authorization", f"Bearer {token}".encode())]})
    assert ["'theirs'" in line for line in told(caplog)] == [False, True]


def test_texts_with_numbers_or_without_an_end_are_bounded() -> None:
    """A number makes no other text, and thousands of texts are distinguished by their labels alone."""
    refusals = Refusals(Counters())
    for number in range(1000):
        refusals.add(Cause("unavailable", f"again in {number} s"), "refused", {}, is_admin=lambda: False)
    assert len(refusals._reported) == 1
    for number in range(1000):
        text = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        for label in ("credential", "signature"):
            refusals.add(Cause(label, text), "refused", {}, is_admin=lambda: False)
    assert len(refusals._reported) <= 66


class Elsewhere:
    """A middleware that leads each request to one path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] == "http":
            scope["path"] = "/me"
        await self.app(scope, receive, send)


@pytest.mark.parametrize("path", ["/health", "/open"])
def test_a_withheld_answer_is_counted_as_refused(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The request was counted as excluded before; the line is an ERROR, because an endpoint has run."""
    routes = [Route("/open", public(lambda request: PlainTextResponse("open"))), Route("/me", page)]
    app = Starlette(routes=routes, middleware=[Middleware(Elsewhere)])
    plugin = plugin_of()
    client = TestClient(UserContextMiddleware(app, plugin=plugin, required=True, exclude=["/health"]))
    for _ in range(3):
        assert client.get(path).status_code == 401
    assert (plugin.stats().requests, plugin.stats().refusals) == ({"refused": 3}, {"withheld": 3})
    (line,) = told(caplog)
    assert "rewrite paths outside" in line


def test_what_an_inner_middleware_refuses_is_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The outer one, which requires no context, has counted an anonymous request that passes."""
    plugin = plugin_of()
    inner = UserContextMiddleware(Starlette(routes=[Route("/", page)]), plugin=plugin, required=True)
    client = TestClient(UserContextMiddleware(Starlette(routes=[Mount("/api", inner)]), plugin=plugin))
    for _ in range(5):
        assert client.get("/api/").status_code == 401
    assert (plugin.stats().requests, plugin.stats().refusals) == ({"refused": 5}, {"anonymous": 5})
    assert len(told(caplog)) == 1


@pytest.mark.parametrize("encoded", ["%40", "%2540"])
def test_an_encoded_address_is_not_logged(encoded: str) -> None:
    """Clients of HTTP put the URL into their errors."""
    url = f"https://x.example/rest/v1/employees?email=eq.ada{encoded}example.com&select=id"
    assert "ada" not in reason_of(RuntimeError(f"error 400 for url '{url}'"))


@pytest.mark.anyio
async def test_a_text_of_a_request_steers_no_terminal_and_begins_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the reason of a failure nor in the hint of a credential."""
    assert reason_of(RuntimeError("a\x1b[2Jb")) == "RuntimeError: a [2Jb"
    error = BadCredential("bad user ada@example.com\x1b[2J\u2028x\nERROR forged")
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(identify=raising(error, error)), required=True)
    await ask(app, http_scope())
    (line,) = told(caplog)
    assert line.isprintable()
    assert "ada@" not in line


@pytest.mark.anyio
async def test_a_scope_of_an_unknown_type_reaches_no_app_that_requires_a_context() -> None:
    """Nothing of it can be resolved."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    scope = {**http_scope(), "type": "webtransport"}
    with pytest.raises(ValueError, match="a scope of type 'webtransport' has no context"):
        await ask(UserContextMiddleware(app, plugin=plugin_of(), required=True), scope)
    assert seen == []
