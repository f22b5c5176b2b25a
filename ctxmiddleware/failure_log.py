"""How a failure of another component is logged: one line with its reason, and the traceback at DEBUG."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

SECONDS: Final = 60.0

_LONGEST: Final = 200
# Messages of drivers repeat what they were given.
_PRIVATE: Final = re.compile(
    r"[^\s'\"<>(]+@[^\s'\">)]+|eyJ[\w.-]+|sb_(?:secret|publishable)_\w+|[\w.+%~-]+%(?:25)*40[\w.%-]+"
)


def log_failure(
    logger: logging.Logger,
    level: int,
    message: str,
    *args: object,
    error: BaseException,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log a failure in one line.

    Args:
        logger: of the component that noticed it.
        level: of the line; the recovery is logged at the same one.
        message: what the failure means, with its arguments.
        *args: of the message.
        error: why; its type and message end the line, and its type is the field `error_type`.
        extra: further fields.
    """
    fields = {**(extra or {}), "error_type": ", ".join(_types(error))}
    logger.log(level, f"{message}: %s", *args, reason_of(error), extra=fields)  # noqa: G004 - the reason ends each line
    logger.debug("the traceback of that failure", exc_info=error)


class Seldom:
    """Says whether a line that many requests would repeat is due: the first, and one a minute after it.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_at: dict[str, float] = {}

    def level(self, level: int, key: str = "") -> int:
        """Return the level of a line: DEBUG until it is due again.

        Args:
            level: where it is due.
            key: distinguishes lines of this kind; one of a small set.
        """
        now = self._clock()
        if now < self._due_at.get(key, now):
            return logging.DEBUG
        self._due_at[key] = now + SECONDS
        return level


def reason_of(error: BaseException) -> str:
    """Return the type and the first line of an error's message, without addresses and tokens."""
    leaves = _leaves(error)
    return "; ".join(dict.fromkeys(_reason(leaf) for leaf in leaves))[: 2 * _LONGEST]


def one_line(text: str) -> str:
    """Return a text with a space in the place of each character that ends a line or steers a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def without_private(text: str) -> str:
    """Return the first line of a text, without addresses and tokens."""
    first, *_ = text.strip().splitlines() or [""]
    return one_line(_PRIVATE.sub("...", first))[:_LONGEST]


def _reason(error: BaseException) -> str:
    text = without_private(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


def _types(error: BaseException) -> list[str]:
    names = [f"{type(error).__module__}.{type(error).__qualname__}"]
    if isinstance(error, BaseExceptionGroup):
        names += [name for each in error.exceptions for name in _types(each)]
    return names
