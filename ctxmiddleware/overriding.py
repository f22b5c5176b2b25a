"""Contexts that tests put in the place of identified ones, for the requests that are made inside a block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any, Final

from anyio import NoEventLoopError
from anyio.lowlevel import current_token

from .accessors import context_variable
from .override import Override


class _Thread(threading.local):
    def __init__(self) -> None:
        self.blocks: list[Override] = []


_current: Final[ContextVar[Override | None]] = ContextVar("user_context_override", default=None)
_thread: Final = _Thread()

# Set by the first block of the process: in production a request looks no further.
_is_used = False


def overridden(key: str, plugin: object) -> Override | None:
    """Return the innermost block that a plugin's request is made in, None where there is none, as in production."""
    if not _is_used:
        return None
    override = _current.get()
    while override is not None:
        if override.is_for(key, plugin):
            return override
        override = override.outer
    for override in reversed(_thread.blocks):
        if override.is_for(key, plugin):
            return override
    return None


@contextmanager
def overriding(context: object, key: str, plugin: object = None) -> Iterator[None]:
    """Give a context to the requests that are made inside the block, and to `current_user_context()`.

    The block holds for what the same task or thread calls and starts: context variables carry it into the event loop of
    a TestClient. Entered outside of any event loop it also holds for the loops that the same thread runs inside it,
    whose tasks have other context variables where a plugin of pytest runs async tests.

    Args:
        context: of these requests; None makes them anonymous.
        key: the scope key of the plugins it is for.
        plugin: the only plugin it is for; None for each with that key.
    """
    global _is_used
    _is_used = True
    variable = context_variable(key)
    override = Override(context, key, plugin, _current.get(), variable.get())
    blocks = None if _is_in_event_loop() else _thread.blocks
    tokens = (_current.set(override), variable.set(override))
    if blocks is not None:
        blocks.append(override)
    try:
        yield
    finally:
        override.is_over = True
        if blocks is not None:
            blocks.remove(override)
        _reset(variable, tokens[1], override)
        _reset(_current, tokens[0], override)


def _reset(variable: ContextVar[Any], token: Token[Any], override: Override) -> None:
    # A block that was entered after this one may still hold; it leads on to what was before this one.
    if variable.get() is override:
        # A fixture may be left in another context than the one it was entered in.
        with suppress(ValueError):
            variable.reset(token)


def _is_in_event_loop() -> bool:
    try:
        current_token()
    except NoEventLoopError:
        return False
    return True
