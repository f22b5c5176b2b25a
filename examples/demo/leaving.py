"""How the demo is told to leave: Ctrl-C, a terminated session and a closed terminal are one thing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# Ctrl-C is often pressed twice, and the second one must not break off the cleaning up.
_CLEANING_UP_TAKES = 15.0
_AGAIN_AFTER = 0.05


class ToldToLeave(KeyboardInterrupt):
    """The process was told to end.

    A class of its own: once Python has seen KeyboardInterrupt itself, and no subclass, pass through code compiled from
    a string, as that of dataclasses is, it ends by the signal, whatever exit status is returned.
    """


class _Leave:
    def __init__(self) -> None:
        self._told_at = float("-inf")
        self._number = int(signal.SIGINT)
        self._report = sys.unraisablehook

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._told_at > _CLEANING_UP_TAKES:
            self._told_at, self._number = now, number
            raise ToldToLeave

    def on_unraisable(self, unraisable: Any) -> None:
        """Send the signal again where a finalizer ran when it arrived: Python discards what is raised in one."""
        if unraisable.exc_type is not ToldToLeave:
            self._report(unraisable)
            return
        self._told_at = float("-inf")
        again = threading.Timer(_AGAIN_AFTER, os.kill, (os.getpid(), self._number))
        again.daemon = True
        again.start()


def by_signal() -> None:
    """Let each of the signals that ask a process to end raise ToldToLeave, a KeyboardInterrupt, once."""
    leave = _Leave()
    sys.unraisablehook = leave.on_unraisable
    for name in _SIGNALS:
        # Windows has no SIGHUP.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), leave)
