"""Tracebacks without secrets: error trackers record the locals of every frame."""

from __future__ import annotations

import functools
import logging
import sysconfig
from collections.abc import Callable, Iterator
from enum import Enum
from types import FrameType, TracebackType
from typing import Final, ParamSpec, TypeVar, cast

from .errors import ContextError, MissingExtra

P = ParamSpec("P")
R = TypeVar("R")

# Loggers of the package: a filter holds for records of its own logger only.
LOGGERS: Final = (
    "ctxmiddleware",
    *(
        f"ctxmiddleware.{part}"
        for part in (
            "admin", "audit", "cache", "context_types", "environment", "holding", "identity", "lifespan", "loading",
            "middleware", "redis", "refusals", "resolver", "routing", "sources", "zones",
        )
    ),
)  # fmt: skip
_PACKAGE: Final = __name__.partition(".")[0]
_INSTALLED: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def sheltered(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that is given secrets refuse them with an error whose traceback begins and ends with its caller.

    Args:
        function: raises a ContextError for what it refuses.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ContextError as error:
            if not isinstance(error, MissingExtra):
                error.__cause__ = error.__context__ = None
            refused = error.with_traceback(None)
        finally:
            del args, kwargs
        raise refused

    return call


def reduced(error: BaseException, *, _seen: frozenset[int] = frozenset()) -> BaseException:
    """Return an error of the same type and message with those frames only that are neither a driver's nor Python's own.

    Frames of drivers hold passwords and keys; a note says where the last of them was. Causes and contexts are reduced
    alike.
    """
    seen = _seen | {id(error)}
    copied = _copied(error, seen)
    kept: list[tuple[FrameType, int, int]] = []
    dropped = ""
    for trace in _traces(error.__traceback__):
        frame = trace.tb_frame
        # A callback of a driver receives the driver's own objects.
        if _is_kept(frame) and not (dropped and _is_ours(frame)):
            kept.append((frame, trace.tb_lasti, trace.tb_lineno))
        else:
            dropped = f"raised in {frame.f_globals.get('__name__')}.{frame.f_code.co_name}, line {trace.tb_lineno}"
    linked: TracebackType | None = None
    for each in reversed(kept):
        linked = TracebackType(linked, *each)
    for note in (*getattr(error, "__notes__", ()), *filter(None, [dropped])):
        copied.add_note(note)
    for name in ("__cause__", "__context__"):
        other = getattr(error, name)
        if other is not None and id(other) not in seen:
            setattr(copied, name, reduced(other, _seen=seen))
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(linked)


def _copied(error: BaseException, seen: frozenset[int]) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseException", error.derive([reduced(each, _seen=seen) for each in error.exceptions]))
    try:
        copied = type(error).__new__(type(error))
        # The message of a KeyError is not its argument but that argument's form in code.
        copied.args = error.args if isinstance(error, KeyError) and _are_plain(error.args) else (str(error),)
        for name, value in vars(error).items():
            # Plain values that `repr` may need; objects of a driver are left out.
            if value is None or isinstance(value, (bool, int, float, Enum)):
                setattr(copied, name, value)
        if str(copied) == str(error) and repr(copied):
            return copied
    except Exception:  # noqa: BLE001, S110 - an exception that cannot be made so is named instead
        pass
    return RuntimeError(f"{type(error).__module__}.{type(error).__qualname__}: {error}")


def _are_plain(arguments: tuple[object, ...]) -> bool:
    return all(each is None or isinstance(each, (str, bool, int, float)) for each in arguments)


def _traces(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _is_kept(frame: FrameType) -> bool:
    return _is_ours(frame) or not frame.f_code.co_filename.startswith(("<", *_INSTALLED))


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE


def _reduce(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] is not None:
        error = reduced(record.exc_info[1])
        record.exc_info = type(error), error, error.__traceback__
    return True


def install() -> None:
    """Reduce the error of every record that the package logs."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_reduce)


install()
