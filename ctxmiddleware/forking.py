"""Reset of inherited state in a forked child: each object that registers itself begins anew there."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Forkable(Protocol):
    """An object whose state belongs to the process that made it."""

    def begin_anew(self) -> None:
        """Replace the state that was copied from the parent, its locks first: another thread may have held them."""
        ...


_registered: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()
_forks = 0


def register(one: Forkable) -> None:
    """Let an object begin anew in every forked child, before the child runs anything else; it is held weakly.

    Args:
        one: an object that can be hashed.
    """
    _registered.add(one)


def epoch() -> int:
    """Return how many forks lie between the first process and this one: another number is another process's state."""
    return _forks


class OneProcess:
    """Whether what was lent to this process is used by no other: a connection that two processes write to is none."""

    def __init__(self) -> None:
        self._epoch: int | None = None

    def claim(self) -> bool:
        """Return whether this process may use it: it is the first to do so."""
        if self._epoch is None:
            self._epoch = epoch()
        return self._epoch == epoch()


def _in_child() -> None:
    global _forks
    _forks += 1
    failures = []
    for one in list(_registered):
        try:
            one.begin_anew()
        except Exception as error:  # noqa: BLE001 - the others begin anew all the same
            failures.append(error)
    if failures:
        raise ExceptionGroup("some objects could not begin anew in a forked process", failures)


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
