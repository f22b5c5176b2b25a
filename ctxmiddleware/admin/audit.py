"""Who has made a running application forget whom: one line in the log for each, with its outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from starlette.types import Scope

logger: Final = logging.getLogger("ctxmiddleware.audit")

Action: TypeAlias = Literal["clear", "invalidate"]
ACTOR_KEY: Final = "ctxmiddleware_admin_actor"


@dataclass
class Record:
    """One deed.

    Args:
        action: what.
        actor: by whom.
        peer: from where.
        user: whom it is about, by what stands for that user in logs; None for everybody.
    """

    action: Action
    actor: str
    peer: str
    user: str | None
    outcome: str = "broken off"

    def write(self) -> None:
        """Write it."""
        logger.log(
            logging.INFO if self.outcome == "done" else logging.WARNING,
            "admin: %s of %s by %s from %s: %s",
            self.action,
            self.user or "everybody",
            self.actor,
            self.peer,
            self.outcome,
            extra={
                "action": self.action,
                "user": self.user,
                "actor": self.actor,
                "peer": self.peer,
                "outcome": self.outcome,
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


def peer_of(scope: Scope) -> str:
    """Return the address of whoever is connected, as the server says."""
    client = scope.get("client")
    return str(client[0]) if client else "no address"
