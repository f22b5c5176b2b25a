"""The middleware around Quart."""

from __future__ import annotations

from typing import Any

import pytest
from quart import Quart, request, websocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from ctxmiddleware import UserContextMiddleware, current_user_context

from ..people import ADA, DOWN, NOBODY, OpenedSource, as_user, plugin_of


def application(source: OpenedSource, **options: Any) -> Any:
    """Return a Quart app in the middleware."""
    app = Quart(__name__)

    @app.before_serving
    async def before() -> None:
        assert source.is_open

    @app.after_serving
    async def after() -> None:
        assert source.is_open

    @app.get("/me")
    async def me() -> dict[str, str | None]:
        context = request.scope["user_context"]  # type: ignore[typeddict-item]  # Quart types what the protocol defines
        assert context is current_user_context()
        return {"email": None if context is None else context.email}

    @app.get("/sync")
    def sync() -> dict[str, str | None]:
        context = current_user_context()
        return {"email": None if context is None else context.email}

    @app.websocket("/live")
    async def live() -> None:
        context = current_user_context()
        assert context is websocket.scope["user_context"]  # type: ignore[typeddict-item]  # as above
        await websocket.send_json({"email": None if context is None else context.email})

    asgi: Any = app  # Quart has types of its own for what the protocol defines
    return UserContextMiddleware(asgi, plugin=plugin_of(source), **options)


@pytest.mark.parametrize("path", ["/me", "/sync"])
def test_it_wraps_a_quart_app(path: str) -> None:
    """Quart's serving hooks run while the plugin is open, and its endpoints, sync ones too, know the user."""
    source = OpenedSource()
    with TestClient(application(source)) as client:
        assert client.get(path, headers=as_user(ADA)).json() == {"email": ADA}
        assert client.get(path).json() == {"email": None}
        assert client.get(path, headers=as_user(DOWN)).status_code == 503
    assert source.events == ["open", "close"]


def test_websockets_and_refusals() -> None:
    """Websockets are served and refused, and what is required is kept."""
    with TestClient(application(OpenedSource(), required=True)) as client:
        assert [client.get("/me", headers=as_user(user)).status_code for user in (None, NOBODY, ADA)] == [401, 403, 200]
        with client.websocket_connect("/live", headers=as_user(ADA)) as socket:
            assert socket.receive_json() == {"email": ADA}
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/live"):
            raise AssertionError("let in")
        assert caught.value.status_code == 401
