"""Who gets into the admin: the guards, how often somebody may fail, and whether what is asked for was meant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from starlette.requests import HTTPConnection
from starlette.responses import Response

from ..principal import Identity, as_identity
from . import audit
from .asking import each_of, is_explicit, is_let_in
from .attempts import Attempts
from .guard import AdminGuard
from .origin import is_meant, way_out
from .problem import problem
from .rule import ContextRule

logger = logging.getLogger("ctxmiddleware.admin")

_WayIn: TypeAlias = "tuple[int, str, Mapping[str, str]]"
# RFC 9110, sections 11.6.1 and 10.2.3.
_NEEDED: Final = {401: ("www_authenticate", "Bearer"), 503: ("retry_after", "1")}


class Door:
    """Lets in whom the guard lets in, and tells the others why not; closed while there is no guard.

    Args:
        guard: who may; None for nobody.
        pseudonym: returns what stands for a user in logs.
        attempts: who has failed how often.
    """

    def __init__(
        self, guard: AdminGuard | None, pseudonym: Callable[[Identity], str], attempts: Attempts | None = None
    ) -> None:
        self._guards = () if guard is None else each_of(guard)
        self._pseudonym = pseudonym
        self._attempts = Attempts() if attempts is None else attempts
        self._refused = audit.Refused()

    async def refusal(self, connection: HTTPConnection) -> Response | None:
        """Return why a connection is not let in, or None where it is; then its scope says who it is."""
        if not self._guards:
            self._refused.note(connection.scope, "nobody", "refused, because the admin is closed")
            return problem(403, "the admin is closed: set CTX_ADMIN_TOKEN, or give ContextPlugin an admin_guard")
        peer = audit.peer_of(connection.scope)
        wait = self._attempts.wait(peer)
        guard = await self._who_lets_in(connection, failed_often=wait > 0)
        if guard is None:
            return self._not_let_in(connection, peer, wait)
        try:
            connection.scope[audit.ACTOR_KEY] = actor = self._actor(guard, connection)
        except Exception:
            logger.exception("the admin's guard cannot say whom it lets in; the request is refused")
            return self._not_let_in(connection, peer, wait)
        if not is_explicit(guard) and not is_meant(connection):
            self._refused.note(connection.scope, actor, "refused, because another site may have sent it")
            return problem(403, way_out(connection))
        return None

    async def _who_lets_in(self, connection: HTTPConnection, *, failed_often: bool) -> AdminGuard | None:
        for guard in self._guards:
            # What cannot be guessed is always looked at, or whoever fails on purpose could shut the operator out.
            if failed_often and getattr(guard, "cannot_be_guessed", False) is not True:
                continue
            if await is_let_in(guard, connection, quiet=failed_often):
                return guard
        return None

    def _not_let_in(self, connection: HTTPConnection, peer: str, wait: int) -> Response:
        if wait:
            self._refused.count(connection.scope)
            return problem(429, "too many attempts from there have failed; try again later", Retry_After=str(wait))
        self._attempts.failed(peer)
        self._refused.note(connection.scope, self._known(connection) or "nobody let in", "refused by the guard")
        status, detail, headers = self._ways_in(connection)
        named = {name.lower().replace("-", "_"): value for name, value in headers.items()}
        if status in _NEEDED:
            name, value = _NEEDED[status]
            named.setdefault(name, value)
        return problem(status, detail, **named)

    def _actor(self, guard: AdminGuard, connection: HTTPConnection) -> str:
        return self._user(guard, connection) or str(getattr(guard, "actor", "guard"))

    def _known(self, connection: HTTPConnection) -> str | None:
        """Return who was refused, where a guard knows."""
        try:
            return next(filter(None, (self._user(guard, connection) for guard in self._guards)), None)
        except Exception:  # noqa: BLE001 - who was refused is for the log only, and stays unknown there
            return None

    def _user(self, guard: AdminGuard, connection: HTTPConnection) -> str | None:
        user_of = getattr(guard, "user_of", None)
        user = user_of(connection) if callable(user_of) else None
        return f"user {self._pseudonym(as_identity(user))}" if user else None

    def _ways_in(self, connection: HTTPConnection) -> _WayIn:
        ways = [_way_in(guard, connection) for guard in self._guards]
        if len(ways) == 1:
            return ways[0]
        return 401, ", or ".join(dict.fromkeys(detail for _, detail, _ in ways)), {}


def _way_in(guard: AdminGuard, connection: HTTPConnection) -> _WayIn:
    if isinstance(guard, ContextRule):
        return guard.refusal(connection)
    if getattr(guard, "actor", None) == "token":
        return 401, "send Authorization: Bearer <the admin's token>", {}
    return 401, "the admin's guard does not let you in", {}
