"""How one process is started, signalled and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import watchdog
from .failure import ServerFailed, tail
from .guard import guard

# The process waits for a word on stdin before it becomes the server: had its parent died before the watchdog knew
# of it, stdin ends and nothing is left behind.
_GATE = ("/bin/sh", "-c", 'read go && exec "$@" </dev/null', "sh")
_GONE_WITHIN = 5.0


@dataclass(frozen=True)
class Launch:
    """What to execute.

    Args:
        argv: program and arguments.
        env: the whole environment; without it the parent's, less what would configure a database behind our back.
        user: the account to run as; only root may give one.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: inherited())
    user: str | None = None


def inherited(**extra: str) -> dict[str, str]:
    """Return the parent's environment without libpq's and PostgREST's variables and locales, with these added."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))} | extra


class Child:
    """A process that is ended with its parent, has a session of its own and writes to a log.

    Args:
        launch: what to execute.
        log: the file its output is added to.
        stop_signal: what asks it to end.
    """

    def __init__(self, launch: Launch, log: Path, *, stop_signal: int = signal.SIGTERM) -> None:
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*_GATE, *launch.argv],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=launch.env,
                cwd="/",
                start_new_session=True,
                user=launch.user,
                group=_group(launch.user) if launch.user else None,
                extra_groups=[] if launch.user else None,
            )
        guard.tell("process", self.pid, stop_signal)
        assert self._process.stdin is not None  # noqa: S101 - it was opened with a pipe
        with self._process.stdin as gate:
            gate.write(b"go\n")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        """Wait for its end by itself.

        Args:
            timeout: seconds.
        """
        code = self._process.wait(timeout)
        guard.tell("ended", self.pid)
        return code

    def send(self, number: int) -> None:
        """Send a signal to the process and all its descendants."""
        if self.exit_code is None:
            watchdog.signal_all(watchdog.family(self.pid), number)

    def kill(self) -> None:
        """End it and its descendants at once, and return when all are gone."""
        members: list[int] = []
        if self.exit_code is None:
            # Stopped first, so that it has no child after its children were listed.
            watchdog.signal_all([self.pid], signal.SIGSTOP)
            members = watchdog.family(self.pid)
            watchdog.signal_all(members, signal.SIGKILL)
        self.wait(10)
        end = time.monotonic() + _GONE_WITHIN
        # One that still dies holds memory and ports that the next start needs.
        while any(map(watchdog.runs, members)) and time.monotonic() < end:
            time.sleep(0.005)

    def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, and kill what has not ended after `grace` seconds."""
        if self.exit_code is None:
            self.send(signal.SIGCONT)
            self._process.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(grace)
        self.kill()


def _group(user: str) -> int:
    import pwd  # not to be had on Windows, where importing this file must not fail

    return pwd.getpwnam(user).pw_gid


def run_to_end(component: str, launch: Launch, log: Path, *, timeout: float) -> None:
    """Run a command that ends by itself.

    Raises:
        ServerFailed: it failed or took longer than `timeout` seconds.
    """
    child = Child(launch, log)
    try:
        code = child.wait(timeout)
    except subprocess.TimeoutExpired:
        raise ServerFailed(component, f"{launch.argv[0]} took more than {timeout:g} s", tail(log)) from None
    finally:
        child.kill()
    if code != 0:
        raise ServerFailed(component, f"{launch.argv[0]} ended with status {code}", tail(log))
