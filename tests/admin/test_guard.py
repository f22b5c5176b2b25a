"""Who may use the admin."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from ctxmiddleware import BearerToken, ConfigurationError, Secret
from ctxmiddleware.admin.app import AdminApp

from ..asgi import ask, http_scope, websocket_scope
from ..people import TOKEN, plugin_of

pytestmark = pytest.mark.anyio


def connection(*values: bytes, name: bytes = b"authorization") -> HTTPConnection:
    """Return a connection with these Authorization headers."""
    return HTTPConnection({"type": "http", "headers": [(name, value) for value in values]})


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {TOKEN}",
        f"bearer {TOKEN}",
        f"BEARER {TOKEN}",
        f"Bearer   {TOKEN}",
        f"Bearer {TOKEN}  ",
        f"Bearer \t{TOKEN}",
    ],
)
@pytest.mark.parametrize("token", [TOKEN, Secret(TOKEN)])
def test_the_token_lets_in(value: str, token: str | Secret) -> None:
    """The scheme's case and the space around the token are HTTP's business, and do not matter."""
    assert BearerToken(token)(connection(value.encode())) is True


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [TOKEN.encode()],
        [b"Basic " + TOKEN.encode()],
        [b" Bearer " + TOKEN.encode()],
        [b"Bearer\t" + TOKEN.encode()],
        [b"Bearer " + TOKEN.upper().encode()],
        [b"Bearer " + TOKEN[:-1].encode()],
        [b"Bearer " + TOKEN.encode() + b"x"],
        [b"Bearer x " + TOKEN.encode()],
        [b"Bearer " + TOKEN.encode() + b"\x00"],
        [b"Bearer " + TOKEN.encode() + b", Bearer x"],
        [b"Bearer \xff\xfe"],
        [b"Bearer " + "tökén".encode()],
        [b"Bearer " + TOKEN.encode(), b"Bearer " + TOKEN.encode()],
        [b"Bearer " + TOKEN.encode(), b"Bearer wrong"],
        [b"Bearer wrong", b"Bearer " + TOKEN.encode()],
    ],
)
def test_anything_else_does_not(values: list[bytes]) -> None:
    """A missing, wrong, odd or doubled header is refused, and never raises."""
    assert BearerToken(TOKEN)(connection(*values)) is False


@pytest.mark.parametrize("token", ["tökén-tökén-tökén-à", "鍵" * 16, "\udcc3\udca4-from-the-environment"])
def test_a_token_outside_ascii_is_compared_as_it_is_sent(token: str) -> None:
    """Clients send such a token as UTF-8, even one that ends in a byte latin-1 takes for a space."""
    sent = token.encode("utf-8", "surrogateescape")
    assert BearerToken(token)(connection(b"Bearer " + sent)) is True
    assert BearerToken(token)(connection(b"Bearer " + sent[:-1])) is False


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "\n",
        f"{TOKEN}\n",
        f" {TOKEN}",
        f"{TOKEN}\n{TOKEN}",
        f"{TOKEN}\r{TOKEN}",
        f"{TOKEN}\x00",
        f"{TOKEN}\x7f{TOKEN}",
        f"{TOKEN}\ud800",
        TOKEN[:15],
        Secret(""),
        Secret(" "),
        Secret(f"{TOKEN}\nx"),
    ],
)
def test_a_token_that_is_none_is_refused_at_once(token: str | Secret) -> None:
    """An empty or short token would let others in, and one read with its line's end nobody; none is shown or kept."""
    with pytest.raises(ConfigurationError, match="the admin's token") as caught:
        BearerToken(token)
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("token", [None, 5, b"bytes-of-a-token", ["a-token"]])
def test_a_token_of_another_kind_is_refused(token: Any) -> None:
    """Only the kind is told."""
    with pytest.raises(ConfigurationError, match=f"the admin's token was {type(token).__name__}"):
        BearerToken(token)


def test_the_token_is_not_shown() -> None:
    """A repr ends in logs."""
    assert TOKEN not in repr(BearerToken(TOKEN))


def raises(connection: HTTPConnection) -> bool:
    """Fail."""
    raise RuntimeError("the directory is down")


async def raises_later(connection: HTTPConnection) -> bool:
    """Fail, after an await."""
    raise RuntimeError("the directory is down")


def allows(connection: HTTPConnection) -> bool:
    """Let everybody in."""
    return True


async def allows_later(connection: HTTPConnection) -> bool:
    """Let everybody in, after an await."""
    return True


@pytest.mark.parametrize("guard", [allows, allows_later])
async def test_a_guard_of_ones_own_may_be_sync_or_async(guard: Any) -> None:
    """True lets in, however it is said."""
    assert (await ask(plugin_of(admin_guard=guard).admin, http_scope("/stats"))).status == 200


@pytest.mark.parametrize(
    "guard",
    [
        raises,
        raises_later,
        lambda connection: False,
        lambda connection: None,
        lambda connection: 1,
        lambda connection: "yes",
        lambda connection: allows,
        lambda: True,
    ],
)
async def test_a_guard_that_does_not_say_true_lets_nobody_in(guard: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An error or a value that is only true in passing is a refusal; an error is logged."""
    answer = await ask(plugin_of(admin_guard=guard).admin, http_scope("/stats"))
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert b"directory" not in answer.body
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failed) == (1 if guard in (raises, raises_later) or guard.__code__.co_argcount == 0 else 0)


@pytest.mark.parametrize("path", ["/stats", "/clear", "/invalidate/x@example.com", "/", "/nope"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_without_a_guard_the_admin_is_closed(path: str, method: str) -> None:
    """Nobody gets anything out of an admin that no guard was configured for, and the answer says what to do."""
    answer = await ask(plugin_of().admin, http_scope(path, method=method))
    assert answer.status == 403
    assert "CTX_ADMIN_TOKEN" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/stats", "/clear", "/invalidate/x@example.com", "/", "/nope"])
async def test_without_the_token_no_path_tells_whether_it_is_there(path: str) -> None:
    """Every path answers alike to who is not let in."""
    answer = await ask(plugin_of(admin_guard=BearerToken(TOKEN)).admin, http_scope(path))
    assert (answer.status, answer.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize("guard", [None, allows])
async def test_the_admin_has_no_websockets(guard: Any) -> None:
    """A websocket to the admin is closed before it opens."""
    answer = await ask(AdminApp(plugin_of(), guard), websocket_scope("/stats"))
    assert answer.kinds == ["websocket.close"]
