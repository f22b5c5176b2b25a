"""Who asks, as Starlette's AuthenticationMiddleware and its kin say."""

from __future__ import annotations

import base64
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ctxmiddleware import Identity, ScopeUser, UserContextMiddleware
from ctxmiddleware.identity.rejection import take_rejection

from ..people import ADA, GONE, NOBODY, as_user, plugin_of


class Person(BaseUser):
    """A user as applications write theirs."""

    def __init__(self, email: Any, *, is_authenticated: Any = True) -> None:
        self.email = email
        self._is_authenticated = is_authenticated

    @property
    def is_authenticated(self) -> Any:
        return self._is_authenticated


class Named(BaseUser):
    """A user of Starlette's interface whose identity is an address."""

    is_authenticated = True

    def __init__(self, identity: str) -> None:
        self._identity = identity

    @property
    def identity(self) -> str:
        return self._identity


@pytest.mark.parametrize("user", [Person(ADA), SimpleUser(ADA), Named(ADA), SimpleNamespace(email=ADA)])
def test_a_signed_in_user_is_identified_by_the_address(user: object) -> None:
    """The address is the user's e-mail, or the identity or name of users that have no e-mail at all."""
    assert ScopeUser()({"user": user}) == Identity(ADA)


@pytest.mark.parametrize(
    "user",
    [
        UnauthenticatedUser(),
        Person(ADA, is_authenticated=False),
        Person(ADA, is_authenticated=None),
        Person(ADA, is_authenticated=lambda: False),
        SimpleNamespace(email="", is_authenticated=False),
    ],
)
def test_a_user_that_is_not_signed_in_is_anonymous(user: object) -> None:
    """Who is not authenticated is nobody, whether frameworks say so by a property or by a method."""
    assert ScopeUser()({"user": user}) is None


def test_a_method_that_says_signed_in_is_believed() -> None:
    """Frameworks where `is_authenticated` is a method are understood."""
    assert ScopeUser()({"user": Person(ADA, is_authenticated=lambda: True)}) == Identity(ADA)


@pytest.mark.parametrize(
    "user",
    [
        SimpleUser("ada"),
        Named("7"),
        Person(None),
        Person(""),
        Person("ada"),
        Person(7),
        Person(ADA.encode()),
        {"email": ADA},
        ADA,
        object(),
    ],
)
def test_a_signed_in_user_without_an_address_is_a_mistake(user: object) -> None:
    """Somebody who is signed in does not become nobody because the address is elsewhere."""
    with pytest.raises(TypeError, match="has no e-mail address") as caught:
        ScopeUser()({"user": user})
    assert ADA not in str(caught.value)


def test_a_name_does_not_stand_in_for_an_unconfirmed_address() -> None:
    """A user whose e-mail is empty is not taken for the address somebody chose as a user name."""

    class Registered(SimpleUser):
        email = None

    with pytest.raises(TypeError):
        ScopeUser()({"user": Registered("the-boss@example.com")})


def test_a_name_that_people_choose_is_no_identity() -> None:
    """Starlette's base class leaves `identity` to be written; without it a user name stands in for nobody."""

    class Nameable(BaseUser):
        is_authenticated = True
        username = ADA

    class Stranger:
        username = ADA

    for user in (Nameable(), Stranger()):
        with pytest.raises(TypeError, match="has no e-mail address"):
            ScopeUser()({"user": user})


def test_the_attribute_and_the_tenant_can_be_chosen() -> None:
    """A user's address may be elsewhere, and a provider's users may be a tenant of their own."""
    user = SimpleNamespace(mail=ADA, email="other@example.com")
    assert ScopeUser("mail", tenant="t")({"user": user}) == Identity(ADA, tenant="t")
    with pytest.raises(TypeError, match=r"\.mail"):
        ScopeUser("mail")({"user": SimpleUser(ADA)})
    assert repr(ScopeUser("mail")) == "ScopeUser('mail')"


@pytest.mark.parametrize("scope", [{}, {"user": None}])
@pytest.mark.parametrize("hint", [None, "set a variable"])
def test_a_scope_without_any_user_is_anonymous_for_a_reason(scope: dict[str, Any], hint: str | None) -> None:
    """The rejection on the scope names the order of middlewares, or what was given in its place."""
    assert ScopeUser(hint=hint)(scope) is None
    rejection = take_rejection(scope)
    assert rejection is not None
    assert rejection.fault == "no user on the scope"
    assert (hint or "add it before") in rejection.hint


class Basic(AuthenticationBackend):
    """Signs in whoever sends a name by Basic, as Starlette's documentation does."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        header = conn.headers.get("authorization")
        if header is None:
            return None
        name, _, _ = base64.b64decode(header.split()[1]).decode().partition(":")
        return AuthCredentials(["authenticated"]), SimpleUser(name)


async def me(request: Request) -> JSONResponse:
    """Tell who it is."""
    context = request.state.user_context
    return JSONResponse(None if context is None else context.email)


def app_of(*, right_order: bool) -> Starlette:
    """Return an app with both middlewares, added in this or in the other order."""
    app = Starlette(routes=[Route("/me", me)])
    ours = (UserContextMiddleware, {"plugin": plugin_of(identify=None)})
    theirs: tuple[Any, dict[str, Any]] = (AuthenticationMiddleware, {"backend": Basic()})
    for cls, options in (ours, theirs) if right_order else (theirs, ours):
        app.add_middleware(cls, **options)
    return app


def test_it_goes_with_starlettes_authentication() -> None:
    """Added before AuthenticationMiddleware, and so inside it, the middleware knows who signed in."""
    client = TestClient(app_of(right_order=True))
    assert client.get("/me", auth=(ADA, "x")).json() == ADA
    assert client.get("/me", auth=(NOBODY, "x")).json() is None
    assert client.get("/me", auth=(GONE, "x")).json() is None
    assert client.get("/me").json() is None
    assert client.get("/me", auth=("no address", "x")).status_code == 500


def test_the_wrong_order_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Added after it, and so outside, everybody is anonymous, and the log says why."""
    client = TestClient(app_of(right_order=False))
    assert [client.get("/me", auth=(ADA, "x"), headers=as_user(ADA)).json() for _ in range(3)] == [None] * 3
    (record,) = [record for record in caplog.records if record.name.startswith("ctxmiddleware")]
    assert record.levelno == logging.WARNING
    assert "add it before that one" in record.message


def test_users_that_are_not_signed_in_are_not_a_wrong_order(caplog: pytest.LogCaptureFixture) -> None:
    """Anonymous requests behind AuthenticationMiddleware are nothing to complain of."""
    client = TestClient(app_of(right_order=True))
    client.get("/me")
    assert [record for record in caplog.records if record.name.startswith("ctxmiddleware")] == []
