"""How a server is started, made ready, disturbed and ended."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from .child import Child, Launch, inherited, run_to_end
from .failure import ServerFailed, tail
from .guard import temporary_folder
from .ports import bindable, free_port

__all__ = ["Launch", "ServerFailed", "ServerProcess", "inherited", "run_to_end", "tail", "temporary_folder"]

_PORTS_TRIED = 5


class ServerProcess:
    """A server on a loopback port: started and ready inside `with`, ended and gone after it.

    Args:
        component: its name in errors.
        launch: what to execute for a given port.
        ready: answers whether the server on this port serves; an OSError means not yet.
        log: the file its output goes to.
        deadline: seconds it may take until it is ready.
        stop_signal: what asks it to end.
        choose_port: gives a port; asked again when that one was taken in the meantime.
    """

    def __init__(
        self,
        component: str,
        launch: Callable[[int], Launch],
        ready: Callable[[int], bool],
        *,
        log: Path,
        deadline: float = 30.0,
        stop_signal: int = signal.SIGTERM,
        choose_port: Callable[[], int] = free_port,
    ) -> None:
        self.component = component
        self.log = log
        self.port = 0
        self._launch = launch
        self._ready = ready
        self._deadline = deadline
        self._stop_signal = stop_signal
        self._choose_port = choose_port
        self._child: Child | None = None

    def __enter__(self) -> Self:
        for _ in range(_PORTS_TRIED):
            self.port = self._choose_port()
            if self._start():
                return self
        raise ServerFailed(self.component, f"{_PORTS_TRIED} ports in a row were taken", tail(self.log))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self._child and self._child.exit_code is None else "not running"
        return f"<{self.component} on port {self.port}, {state}>"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._child is not None and self._child.exit_code is None

    def pause(self) -> None:
        """Stop its clock: it keeps its connections and answers nothing."""
        self._running().send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running().send(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._running().kill()

    def stop(self) -> None:
        """End it in good order; nothing happens where it is not running."""
        if self._child is not None:
            self._child.stop()

    def restart(self) -> None:
        """Start it again on the same port, ending it first where it still runs."""
        self.stop()
        end = time.monotonic() + self._deadline
        while not self._start():
            if time.monotonic() > end:
                raise ServerFailed(self.component, f"its port {self.port} is taken", tail(self.log))
            time.sleep(0.05)

    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.component} was never started: use it inside `with`")
        return self._child

    def _start(self) -> bool:
        """Answer whether it is ready; False means that its port is taken."""
        # Else the one who listens there would be found ready in its place.
        if not bindable(self.port):
            return False
        written = self.log.stat().st_size if self.log.exists() else 0
        try:
            self._child = Child(self._launch(self.port), self.log, stop_signal=self._stop_signal)
            ready = self._becomes_ready()
        except OSError as error:
            raise ServerFailed(self.component, str(error), tail(self.log)) from error
        except BaseException:
            self.stop()
            raise
        if ready:
            return True
        self.stop()
        with self.log.open("rb") as log:
            log.seek(written)
            if b"address already in use" in log.read().lower():
                return False
        raise ServerFailed(self.component, f"it ended with status {self._running().exit_code}", tail(self.log))

    def _becomes_ready(self) -> bool:
        """Wait until it serves; False means that it ended before."""
        end = time.monotonic() + self._deadline
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                # Looked at after the answer: the one who answers may be another server on that port.
                if self._ready(self.port) and self.running:
                    return True
            if not self.running:
                return False
            time.sleep(0.01)
        raise ServerFailed(self.component, f"it was not ready within {self._deadline:g} s", tail(self.log))
