"""What the watchdog is told to end and to remove, should this process die."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from . import watchdog
from .failure import ServerFailed


class _Watchdog:
    """The line to this process's watchdog, which is started with the first word to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, *words: str | int) -> None:
        with self._lock:
            stdin = self._running().stdin
            assert stdin is not None  # noqa: S101 - it was opened with a pipe
            stdin.write(json.dumps(words).encode() + b"\n")
            stdin.flush()

    def _running(self) -> subprocess.Popen[bytes]:
        if os.name != "posix":
            raise ServerFailed("Every server", "processes are kept in order on POSIX systems only")
        # A forked child has its parent's line, whose end would not come with the child's.
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, str(self._owner)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
            atexit.register(self._dismiss, self._process)
        return self._process

    def _dismiss(self, process: subprocess.Popen[bytes]) -> None:
        if self._owner == os.getpid() and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()


guard = _Watchdog()


@contextlib.contextmanager
def temporary_folder(purpose: str, *, parent: str | None = None) -> Iterator[Path]:
    """Make a folder that only we may read and remove it in the end, even if this process is killed meanwhile."""
    path = Path(parent or tempfile.gettempdir()) / f"ctx-{purpose}-{secrets.token_hex(8)}"
    guard.tell("folder", str(path))
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            guard.tell("removed", str(path))
