"""The people the tests ask for, the source that knows them, and how they say who they are."""

from __future__ import annotations

from typing import Any, Self

from starlette.types import Scope

from ctxmiddleware import (
    ContextPlugin,
    Employee,
    Identify,
    Identity,
    SourceError,
    SourceMisconfigured,
    SourceUnavailable,
    UserContext,
)
from ctxmiddleware.testing import StaticSource

ADA = "ada@example.com"
BOB = "bob@example.com"
GONE = "gone@example.com"
NOBODY = "nobody@example.com"
DOWN = "down@example.com"
BROKEN = "broken@example.com"
MALFORMED = "malformed@example.com"
TOKEN = "a-token-of-the-admin"


def context_of(email: str, *, number: int = 1, is_active: bool = True) -> UserContext:
    """Return a context that carries its address."""
    return UserContext(email, Employee(number, email, email.split("@")[0], None, "staff", is_active), (), (), ())


def known() -> dict[str, UserContext | SourceError]:
    """Return what the source says of each address; NOBODY is not among them."""
    return {
        ADA: context_of(ADA),
        BOB: context_of(BOB, number=2),
        GONE: context_of(GONE, number=3, is_active=False),
        DOWN: SourceUnavailable("the source is down", retry_after=7.2),
        BROKEN: SourceMisconfigured("the grant hr.secret is missing"),
        MALFORMED: SourceError("employees.id held 'x'"),
    }


def by_header(scope: Scope) -> Identity | None:
    """Identify by the header x-user."""
    email = dict(scope["headers"]).get(b"x-user")
    return None if email is None else Identity(email.decode())


async def by_header_later(scope: Scope) -> Identity | None:
    """Identify by the header x-user, as an async function."""
    return by_header(scope)


def as_user(email: str | None) -> dict[str, str]:
    """Return the headers of somebody, or of nobody."""
    return {} if email is None else {"x-user": email}


class OpenedSource(StaticSource[UserContext]):
    """A source that has to be opened, and writes down when it is opened and closed."""

    def __init__(self, events: list[str] | None = None) -> None:
        super().__init__(known())
        self.events: list[str] = [] if events is None else events

    @property
    def is_open(self) -> bool:
        """Whether it was opened more often than closed."""
        return self.events.count("open") > self.events.count("close")

    async def __aenter__(self) -> Self:
        self.events.append("open")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.events.append("close")


class NeverOpens(OpenedSource):
    """A source whose opening fails."""

    async def __aenter__(self) -> Self:
        raise OSError("no route to the source") from ValueError("the cause")


def plugin_of(
    source: StaticSource[UserContext] | None = None, identify: Identify | None = by_header, **options: Any
) -> ContextPlugin[UserContext]:
    """Return a plugin over these people, who say who they are by a header."""
    return ContextPlugin(source=source or StaticSource(known()), identify=identify, **options)
