"""Who has made a running application forget whom: one line in the log for each, with its outcome."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from starlette.types import Scope

from .. import forking
from ..routing import relative_path
from .attempts import TokenBucket

logger: Final = logging.getLogger("ctxmiddleware.audit")

Action: TypeAlias = Literal["clear", "invalidate"]
ACTOR_KEY: Final = "ctxmiddleware_admin_actor"

# An address, a name or the path of a socket: a proxy may have passed on whatever somebody wrote into a header.
_PEER: Final = re.compile(r"[A-Za-z0-9_.:%/-]{1,64}")


@dataclass
class Record:
    """One deed.

    Args:
        action: what.
        actor: by whom.
        peer: from where.
        user: whom it is about, by what stands for that user in logs; None for everybody.
        outcome: what became of it.
        unwritten: how many refused ones came before it that were too many to be written.
    """

    action: Action
    actor: str
    peer: str
    user: str | None
    outcome: str = "broken off"
    unwritten: int = 0

    def write(self) -> None:
        """Write it."""
        logger.log(
            logging.INFO if self.outcome == "done" else logging.WARNING,
            "admin: %s of %s by %s from %s: %s%s",
            self.action,
            self.user or "everybody",
            self.actor,
            self.peer,
            self.outcome,
            f" (and {self.unwritten} more before it)" if self.unwritten else "",
            extra={
                "action": self.action,
                "user": self.user,
                "actor": self.actor,
                "peer": self.peer,
                "outcome": self.outcome,
                "unwritten": self.unwritten,
            },
        )


@contextmanager
def recorded(scope: Scope, action: Action, user: str | None = None) -> Iterator[Record]:
    """Write down what became of an action, however the block ends: a caller that hangs up leaves a line as well."""
    record = Record(action, scope.get(ACTOR_KEY, "unknown"), peer_of(scope), user)
    try:
        yield record
    except BaseException as error:
        if record.outcome == "broken off" and isinstance(error, Exception):
            record.outcome = f"failed ({type(error).__name__})"
        raise
    finally:
        record.write()


class Refused:
    """Writes down what was refused: a bounded number of lines, whatever the number of those who try."""

    def __init__(self) -> None:
        self.begin_anew()
        forking.register(self)

    def begin_anew(self) -> None:
        """Count anew in a forked process."""
        self._lock = threading.Lock()
        self._lines = TokenBucket(burst=200, every=1.0)
        self._unwritten = 0

    def note(self, scope: Scope, actor: str, outcome: str) -> None:
        """Write that somebody was refused a clear or an invalidate; nothing where it was none.

        Args:
            scope: what was asked.
            actor: by whom, as far as it is known.
            outcome: why it was refused.
        """
        action = deed(scope)
        if action is None:
            return
        with self._lock:
            if self._lines.wait():
                self._unwritten += 1
                return
            self._lines.take()
            unwritten, self._unwritten = self._unwritten, 0
        # Whom somebody would have forgotten who may not is his to choose: it is not written down.
        Record(action, actor, peer_of(scope), "somebody", outcome, unwritten).write()

    def count(self, scope: Scope) -> None:
        """Count one that is not written itself, for the next line to tell."""
        if deed(scope) is not None:
            with self._lock:
                self._unwritten += 1


def deed(scope: Scope) -> Action | None:
    """Return what a request would do, or None where it would change nothing."""
    if scope.get("method") != "POST":
        return None
    path = relative_path(scope)
    if path in ("/clear", "/clear/"):
        return "clear"
    return "invalidate" if path == "/invalidate" or path.startswith("/invalidate/") else None


def peer_of(scope: Scope) -> str:
    """Return the address of whoever is connected, as the server says."""
    client = scope.get("client")
    if not client:
        return "no address"
    peer = str(client[0])
    return peer if _PEER.fullmatch(peer) else "an odd address"
