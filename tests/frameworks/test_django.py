"""The middleware around Django's ASGI application, which knows http only and raises on a lifespan."""

from __future__ import annotations

import logging
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from starlette.testclient import TestClient

from ctxmiddleware import UserContextMiddleware, current_user_context, user_context_from_scope

from ..people import ADA, DOWN, NOBODY, OpenedSource, as_user, plugin_of


def _answer(request: HttpRequest) -> JsonResponse:
    scope: dict[str, Any] = request.scope
    context = user_context_from_scope(scope)
    assert context is current_user_context()
    assert context is scope["state"]["user_context"]
    return JsonResponse({"email": None if context is None else context.email})


async def me(request: HttpRequest) -> JsonResponse:
    """Tell who it is."""
    return _answer(request)


def sync(request: HttpRequest) -> JsonResponse:
    """Tell who it is, from the thread Django runs it in."""
    return _answer(request)


urlpatterns = [path("me", me), path("sync", sync)]


@pytest.fixture(scope="module")
def django_app() -> Any:
    """Django's ASGI application, of these two views."""
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", LOGGING_CONFIG=None, USE_TZ=True
    )
    django.setup()
    return get_asgi_application()


@pytest.mark.parametrize("view", ["/me", "/sync"])
def test_it_wraps_django(django_app: Any, view: str, caplog: pytest.LogCaptureFixture) -> None:
    """Django's refusal of a lifespan is answered for and logged, and both kinds of views know the user."""
    source = OpenedSource()
    with TestClient(UserContextMiddleware(django_app, plugin=plugin_of(source))) as client:
        assert source.events == ["open"]
        assert client.get(view, headers=as_user(ADA)).json() == {"email": ADA}
        assert client.get(view).json() == {"email": None}
        assert client.get(view, headers=as_user(DOWN)).status_code == 503
    assert source.events == ["open", "close"]
    told = [record for record in caplog.records if record.name == "ctxmiddleware.lifespan"]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert told[0].exc_info is None
    assert "ValueError: Django can only handle ASGI/HTTP connections" in told[0].message


@pytest.mark.parametrize("view", ["/me", "/sync"])
def test_required_is_kept_before_django(django_app: Any, view: str) -> None:
    """Who has no context does not reach Django at all."""
    client = TestClient(UserContextMiddleware(django_app, plugin=plugin_of(), required=True, exclude=["/nope"]))
    assert [client.get(view, headers=as_user(user)).status_code for user in (None, NOBODY, ADA)] == [401, 403, 200]
    assert client.get("/nope").status_code == 404


def test_a_preflight_is_no_way_to_a_view(django_app: Any) -> None:
    """Django gives a view every method, and its routing cannot be read."""
    preflight = {"origin": "https://app.example.com", "access-control-request-method": "GET"}
    client = TestClient(UserContextMiddleware(django_app, plugin=plugin_of(), required=True))
    answer = client.options("/me", headers=preflight)
    assert (answer.status_code, "email" in answer.text) == (401, False)
    client = TestClient(UserContextMiddleware(django_app, plugin=plugin_of(), required=True, preflight="pass"))
    assert client.options("/me", headers=preflight).json() == {"email": None}
