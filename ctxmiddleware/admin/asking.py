"""Whether a guard lets somebody in: anything but True is no, and whatever goes wrong is no as well."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from inspect import isawaitable, iscoroutine
from typing import Final

import anyio
from starlette.requests import HTTPConnection

from ..errors import ConfigurationError
from .guard import AdminGuard

logger = logging.getLogger("ctxmiddleware.admin")

TIMEOUT: Final = 10.0


class AnyOf:
    """Lets in whom one of several guards lets in; made by `any_of`.

    Args:
        guards: who is asked, those first that look at what no browser sends by itself.
    """

    def __init__(self, guards: Iterable[AdminGuard]) -> None:
        self.guards: Final = tuple(sorted(guards, key=lambda guard: not is_explicit(guard)))

    def __repr__(self) -> str:
        return f"any_of({', '.join(map(repr, self.guards))})"

    async def __call__(self, connection: HTTPConnection) -> bool:
        """Return whether one of them lets the connection in; one that fails keeps none of the others from it."""
        for guard in self.guards:
            if await is_let_in(guard, connection):
                return True
        return False


def any_of(*guards: AdminGuard) -> AnyOf:
    """Return a guard that lets in whom one of these lets in: a token for the shell, and a rule for the browser.

    Args:
        *guards: one or more; each is asked for itself, so what the one lets in needs nothing that another needs.

    Raises:
        ConfigurationError: one is no guard, or there is none.
    """
    faults = [
        f"any_of got {'a class' if isinstance(guard, type) else type(guard).__name__}; each is called with a connection"
        for guard in guards
        if isinstance(guard, type) or not callable(guard)
    ]
    if faults or not guards:
        raise ConfigurationError(*(faults or ["any_of got no guard: leave admin_guard out to keep the admin closed"]))
    return AnyOf(each for guard in guards for each in each_of(guard))


def each_of(guard: AdminGuard) -> tuple[AdminGuard, ...]:
    """Return the guards that a guard is made of."""
    return guard.guards if isinstance(guard, AnyOf) else (guard,)


def is_explicit(guard: AdminGuard) -> bool:
    """Return whether a guard looks at what no browser sends by itself."""
    return getattr(guard, "is_explicit", False) is True


async def is_let_in(
    guard: AdminGuard, connection: HTTPConnection, *, quiet: bool = False, timeout: float = TIMEOUT
) -> bool:
    """Return whether a guard says True of a connection.

    Args:
        guard: who is asked.
        connection: who wants in.
        quiet: whether a failure is not logged.
        timeout: seconds after which a guard that has not answered has failed.
    """
    try:
        verdict = await _answer(guard(connection), timeout)
    except Exception:
        if not quiet:
            logger.exception("the admin's guard failed; the request is refused")
        return False
    if iscoroutine(verdict):
        verdict.close()
    # Anything but True is a refusal: a guard that forgot to await must not let everybody in.
    return verdict is True


async def _answer(told: object, timeout: float) -> object:
    if not isawaitable(told):
        return told
    with anyio.fail_after(timeout):
        answer: object = await told
    return answer
