"""What is raised when a server cannot run."""

from __future__ import annotations

from pathlib import Path

_TAIL = 2000


class ServerFailed(Exception):
    """A server cannot run here.

    Args:
        component: which one, as a reader knows it ("PostgreSQL").
        reason: what went wrong, in a few words.
        log: the end of what it wrote.
    """

    def __init__(self, component: str, reason: str, log: str = "") -> None:
        self.component = component
        self.reason = reason
        self.log = log
        super().__init__("\n".join(filter(None, [f"{component} cannot run here: {reason}", log])))


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-_TAIL:].strip() if log.exists() else ""
