"""Which log records of the HTTP client are ours to keep silent: those that would print an address."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

_ours: ContextVar[bool] = ContextVar("ctxmiddleware_request", default=False)

# A filter sees the records of its own logger only, never those of the loggers below it.
_LOGGERS = [
    *(client for client in ("httpx", "httpx2")),
    *(
        f"{core}.{part}"
        for core in ("httpcore", "httpcore2")
        for part in ("connection", "http11", "http2", "proxy", "socks")
    ),
]


def _not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001 - the shape logging asks for
    return not _ours.get()


@cache
def _install() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_not_ours)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the HTTP client's own log records of the requests in this block out of the logs.

    It logs whole URLs at INFO and whole response headers at DEBUG; both hold the address a table was searched for.
    """
    _install()
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
