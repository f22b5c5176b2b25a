"""Whether the admin answers as its own OpenAPI document says, whatever it is asked."""

from __future__ import annotations

import json
from typing import Any

import anyio
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from ctxmiddleware import BearerToken, UserContextMiddleware
from ctxmiddleware.admin.app import AdminApp
from ctxmiddleware.admin.attempts import Attempts
from ctxmiddleware.admin.openapi import DOCUMENT
from ctxmiddleware.testing import FakeClock

from ..asgi import Answer, ask, http_scope
from ..matrix import Cases
from ..people import ADA, TOKEN, plugin_of

PATH = "/api/admin/cache"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}


def _app(path: str = "") -> ASGIApp:
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    # What it is asked without the token must not shut it out.
    admin = AdminApp(plugin, BearerToken(TOKEN), attempts=Attempts(burst=1_000_000))
    app: ASGIApp = Starlette(routes=[Mount(path, app=admin)]) if path else admin
    return UserContextMiddleware(app, plugin=plugin)


# Not mounted, because no address with a line's end in it gets through a Mount of Starlette's.
schema = schemathesis.openapi.from_asgi("/openapi.json", _app(), headers=AUTHORIZED)


@schema.auth()
class Token:
    """How the document's cases are let in."""

    def get(self, case: Any, context: Any) -> str:
        """Return the token."""
        return TOKEN

    def set(self, case: Any, data: str, context: Any) -> None:
        """Send it."""
        case.headers["authorization"] = f"Bearer {data}"


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_answers_as_its_document_says(case: Any) -> None:
    """With and without what is let in, asked as the document says and otherwise."""
    case.call_and_validate()


def test_the_document_names_every_route_and_no_other() -> None:
    """What is added to the one is added to the other."""
    admin = AdminApp(plugin_of(), BearerToken(TOKEN))
    routes = {route.path.replace(":path", "") for route in admin._routes}
    assert {path.rstrip("/") for path in routes} == set(DOCUMENT["paths"])


def test_the_document_is_for_those_who_are_let_in() -> None:
    """It tells nothing secret, but deny is the rule."""
    client = TestClient(_app(PATH))
    assert client.get(f"{PATH}/openapi.json").status_code == 401
    answer = client.get(f"{PATH}/openapi.json", headers=AUTHORIZED)
    assert answer.json() == {**DOCUMENT, "servers": [{"url": PATH}]}


_BYTES = st.binary(max_size=40).filter(lambda value: b"\r" not in value and b"\n" not in value)
_METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", ""])
_PATHS = st.one_of(
    st.text(max_size=40).map(lambda text: f"/{text}"),
    st.sampled_from(
        ["/stats", "/clear", "/invalidate", "/invalidate/x", "/openapi.json", "/stats/", "/../stats", "//clear"]
    ),
)

_TEXTS = st.one_of(st.text(max_size=8), st.sampled_from([ADA, "7", "\ud800"]), st.none(), st.integers())
_FIELDS = st.sampled_from(["email", "subject", "tenant", "other"])
_BODIES = st.one_of(
    st.binary(max_size=40), st.dictionaries(_FIELDS, _TEXTS).map(lambda fields: json.dumps(fields).encode())
)


def _many_examples(cases: Cases) -> settings:
    return settings(max_examples=500 if cases is Cases.FULL else 100, deadline=None)


def test_nobody_gets_in_by_garbage(cases: Cases) -> None:
    """Whatever is sent without the token is refused, by problem details, and forgets nobody."""

    @_many_examples(cases)
    @given(
        method=_METHODS,
        path=_PATHS,
        headers=st.lists(st.tuples(st.sampled_from([b"authorization", b"origin", b"host", b"sec-fetch-site"]), _BYTES)),
        peer=st.one_of(st.none(), st.text(max_size=20)),
    )
    def garbage(method: str, path: str, headers: list[tuple[bytes, bytes]], peer: str | None) -> None:
        anyio.run(_is_refused, method, path, headers, peer)

    garbage()


async def _is_refused(method: str, path: str, headers: list[tuple[bytes, bytes]], peer: str | None) -> None:
    plugin = plugin_of()
    admin = AdminApp(plugin, BearerToken(TOKEN), attempts=Attempts(clock=FakeClock()))
    await plugin.resolve(ADA)
    client = None if peer is None else (peer, 1)
    answer: Answer = await ask(admin, {**http_scope(path), "method": method, "headers": headers, "client": client})
    assert (answer.status, answer.headers["content-type"]) == (401, "application/problem+json")
    assert plugin.stats().memory.entries == 1


def test_whatever_is_asked_with_the_token_is_answered(cases: Cases) -> None:
    """By JSON or by problem details, and by no exception."""

    @_many_examples(cases)
    @given(method=_METHODS, path=_PATHS, headers=st.lists(st.tuples(_BYTES, _BYTES)), body=_BODIES)
    def anything(method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        anyio.run(_is_answered, method, path, headers, body)

    anything()


async def _is_answered(method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    admin = AdminApp(plugin_of(), BearerToken(TOKEN))
    sent = [(b"authorization", f"Bearer {TOKEN}".encode()), *(each for each in headers if each[0] != b"authorization")]
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    await admin({**http_scope(path), "method": method, "headers": sent}, receive, answer.send)
    assert answer.status in (200, 400, 404, 405)
    kind = "application/json" if answer.status == 200 else "application/problem+json"
    assert answer.headers["content-type"] == kind
