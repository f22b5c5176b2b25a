"""What users' own tests need: a source that answers from a mapping, a clock, and a context without any cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from .accessors import context_variable
from .address import normalise
from .errors import SourceError
from .sources.base import BatchSource, Loaded

T = TypeVar("T")


class StaticSource(BatchSource[T]):
    """A source that answers from a mapping and notes what it was asked: `calls` for one user, `batches` for many.

    Args:
        contexts: contexts by address; an error in a context's place is raised. An address that is not there is unknown.
        origin: the origin its answers carry.
    """

    def __init__(self, contexts: Mapping[str, T | SourceError], *, origin: str = "static") -> None:
        self._contexts = {normalise(email): context for email, context in contexts.items()}
        self._origin = origin
        self.calls: list[str] = []
        self.batches: list[tuple[str, ...]] = []

    def __repr__(self) -> str:
        return f"<StaticSource: {len(self._contexts)} contexts, {len(self.calls)} calls>"

    async def fetch(self, email: str) -> Loaded[T]:
        """Return the mapping's context.

        Raises:
            SourceError: the mapping holds an error for this address.
        """
        self.calls.append(email)
        answer = self._answer(email)
        if isinstance(answer, SourceError):
            raise answer
        return answer

    async def fetch_many(self, emails: Sequence[str]) -> dict[str, Loaded[T] | SourceError]:
        """Return the mapping's contexts, and its errors."""
        self.batches.append(tuple(emails))
        return {email: self._answer(email) for email in emails}

    def _answer(self, email: str) -> Loaded[T] | SourceError:
        answer = self._contexts.get(normalise(email))
        return answer if isinstance(answer, SourceError) else Loaded(answer, self._origin)


class FakeClock:
    """A monotonic clock that moves when it is told to.

    Args:
        now: seconds it shows at first.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the seconds it shows."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now += seconds


@contextmanager
def override_user_context(context: object, *, key: str = "user_context") -> Iterator[None]:
    """Let `current_user_context()` return a context inside the block, without middleware or request.

    Args:
        context: what it returns.
        key: the scope key of the plugin it stands for.
    """
    variable = context_variable(key)
    token = variable.set(context)
    try:
        yield
    finally:
        variable.reset(token)
