"""SQLAlchemy's synchronous sessions, in threads without event loop: a hook invalidates after each COMMIT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import event, update
from sqlalchemy.orm import Session, sessionmaker

from ctxmiddleware import ContextPlugin

from .sqlalchemy_models import Account

Sessions = sessionmaker[Session]

_CHANGED: Final = "changed users"


def changed(session: Session, *emails: str) -> None:
    """Say that the transaction of a session changes users."""
    session.info.setdefault(_CHANGED, set()).update(emails)


def install(sessions: Sessions | type[Session], plugin: ContextPlugin[str]) -> None:
    """Invalidate changed users after each COMMIT of these sessions.

    Where Redis cannot be reached, `commit()` raises `InvalidationFailed`, and the COMMIT is made all the same.
    """

    @event.listens_for(sessions, "after_commit")
    def invalidate(session: Session) -> None:
        # The hook is called at the end of a savepoint too.
        if not session.in_nested_transaction() and (emails := session.info.pop(_CHANGED, None)):
            plugin.invalidate_sync(emails, or_clear=True)

    @event.listens_for(sessions, "after_rollback")
    def forget(session: Session) -> None:
        if not session.in_nested_transaction():
            session.info.pop(_CHANGED, None)


def change(sessions: Sessions, email: str, role: str) -> None:
    """Change a user; the hook invalidates after the COMMIT."""
    with sessions.begin() as session:
        session.execute(update(Account).where(Account.email == email).values(role=role))
        changed(session, email)


def change_at_length(
    sessions: Sessions, plugin: ContextPlugin[str], email: str, role: str, work: Callable[[], None]
) -> None:
    """Change a user in a transaction that may take longer than `settle`; the block of the plugin is the outer one."""
    with plugin.changing(email), sessions.begin() as session:
        session.execute(update(Account).where(Account.email == email).values(role=role))
        work()
