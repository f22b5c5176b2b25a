"""Which errors in the processes' logs nobody has foreseen: all but logged faults of Redis or the source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from tests.privacy import PRIVATE

_RAW: Final = "Traceback (most recent call last)"
_FORESEEN: Final = (
    "redis.exceptions.",
    "builtins.TimeoutError",
    "builtins.Connection",
    "builtins.BrokenPipeError",
    "builtins.OSError",
    "ctxmiddleware.errors.SourceUnavailable",
    "ctxmiddleware.errors.InvalidationFailed",
    "ctxmiddleware.cache.shared.SharedTierFailed",
)
# The end of an outage has the level of its beginning.
_ENDED: Final = (
    "Redis answers again",
    "the node of the Redis cluster answers again",
    "the keys of tokens can be fetched again",
    "zones: loaded",
)
# What uvicorn says of requests that outlast its shut-down, and of what it then does with them.
_CUT_SHORT: Final = ("timeout graceful shutdown exceeded", "CancelledError")


def unhandled(text: str) -> list[str]:
    """Return what nobody has foreseen in a log that `app.Lines` and the interpreter have written.

    That is: an exception logged by anybody that is not a fault of Redis or of the source; an error of the server's or
    of asyncio's own ("Exception in ASGI application", "Task exception was never retrieved"); a warning of Python's own
    (a coroutine never awaited, a resource never closed); a traceback that went past the logging; and what is private.
    """
    return list(_found(text))


def _found(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if any(private.search(line) for private in PRIVATE):
            yield f"something private is in the log: {line[:200]}"
        record = _record(line)
        if record is None:
            if _RAW in line:
                yield line
        elif _is_unforeseen(record):
            yield f"{record['level']} {record['logger']}: {record['text']} {record.get('trace', '')}"


def _record(line: str) -> dict[str, object] | None:
    # A process that is killed leaves half a line.
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "logger" in found else None


def _is_unforeseen(record: dict[str, object]) -> bool:
    if record["logger"] == "py.warnings":
        return True
    told = f"{record['text']} {record.get('trace', '')}"
    if str(record["logger"]).startswith("uvicorn") and any(words in told for words in _CUT_SHORT):
        return False
    if str(record["logger"]).startswith("ctxmiddleware") and record["text"] in _ENDED:
        return False
    errors = record["errors"]
    if isinstance(errors, list) and errors:
        is_ours = str(record["logger"]).startswith("ctxmiddleware")
        return not is_ours or not all(str(each).startswith(_FORESEEN) for each in errors)
    return record["level"] in ("ERROR", "CRITICAL")
