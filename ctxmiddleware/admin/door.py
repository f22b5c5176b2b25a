"""Who gets into the admin: the guard, how often somebody may fail, and whether what is asked for was meant."""

from __future__ import annotations

import logging
from collections.abc import Callable
from inspect import isawaitable

from starlette.requests import HTTPConnection
from starlette.responses import Response

from . import audit
from .attempts import Attempts
from .guard import AdminGuard
from .origin import CUSTOM, SAFE, is_meant
from .problem import problem

logger = logging.getLogger("ctxmiddleware.admin")


class Door:
    """Lets in whom the guard lets in, and tells the others why not; closed while there is no guard.

    Args:
        guard: who may; None for nobody.
        pseudonym: returns what stands for an address in logs.
        attempts: who has failed how often.
    """

    def __init__(
        self, guard: AdminGuard | None, pseudonym: Callable[[str], str], attempts: Attempts | None = None
    ) -> None:
        self._guard = guard
        self._pseudonym = pseudonym
        self._attempts = Attempts() if attempts is None else attempts

    async def refusal(self, connection: HTTPConnection) -> Response | None:
        """Return why a connection is not let in, or None where it is; then its scope says who it is."""
        if self._guard is None:
            detail = "the admin is closed: set CTX_ADMIN_TOKEN, or give ContextPlugin an admin_guard"
            return problem(403, detail)
        peer = audit.peer_of(connection.scope)
        wait = self._attempts.wait(peer)
        if wait:
            return problem(429, "too many attempts have failed: try again later", Retry_After=str(wait))
        if not await self._is_let_in(self._guard, connection):
            self._attempts.failed(peer)
            self._note(connection, "refused by the guard")
            return problem(401, _way_in(self._guard), WWW_Authenticate="Bearer")
        connection.scope[audit.ACTOR_KEY] = self._actor(self._guard, connection)
        if getattr(self._guard, "is_explicit", False) is not True and not is_meant(connection):
            self._note(connection, "refused, because another site may have sent it")
            return problem(403, f"what changes something needs a header {CUSTOM.title()}, or to come from this site")
        return None

    async def _is_let_in(self, guard: AdminGuard, connection: HTTPConnection) -> bool:
        try:
            verdict = guard(connection)
            if isawaitable(verdict):
                verdict = await verdict
        except Exception:
            logger.exception("the admin's guard failed; the request is refused")
            return False
        # Anything but True is a refusal: a guard that forgot to await must not let everybody in.
        return verdict is True

    def _actor(self, guard: AdminGuard, connection: HTTPConnection) -> str:
        user_of = getattr(guard, "user_of", None)
        user = user_of(connection) if callable(user_of) else None
        return f"user {self._pseudonym(user)}" if user else str(getattr(guard, "actor", "guard"))

    def _note(self, connection: HTTPConnection, outcome: str) -> None:
        scope = connection.scope
        if scope.get("method") in SAFE:
            return
        action: audit.Action = "clear" if str(scope.get("path")).rstrip("/").endswith("/clear") else "invalidate"
        # Whom somebody would have forgotten who may not is his to choose: it is not written down.
        actor = scope.get(audit.ACTOR_KEY, "nobody let in")
        audit.Record(action, actor, audit.peer_of(scope), "somebody", outcome).write()


def _way_in(guard: AdminGuard) -> str:
    if getattr(guard, "actor", None) == "token":
        return "send Authorization: Bearer <the admin's token>"
    return "the admin's guard does not let you in"
