"""How a test forks its process and learns what the child found."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from .measured import save_in_child
from .waiting import PATIENCE


@dataclass
class Child:
    """A forked process, which ends with its answer."""

    pid: int
    _told: int
    _answers: int

    def go_on(self) -> None:
        """Let the child continue after its next wait."""
        os.write(self._told, b".")

    async def answer(self) -> Any:
        """Return what the child's work returned, by way of JSON."""
        text = await anyio.to_thread.run_sync(self._read)
        kind, answer = json.loads(text or '["failed", "it died without an answer"]')
        assert kind == "answered", answer
        return answer

    def _read(self) -> bytes:
        with os.fdopen(self._answers, "rb") as answers:
            text = answers.read()
        os.waitpid(self.pid, 0)
        os.close(self._told)
        return text


def fork(work: Callable[[Callable[[], None]], object]) -> Child:
    """Fork this process; the child does the work and ends.

    Args:
        work: is given a function that waits until the parent lets the child continue.
    """
    waits, told = os.pipe()
    answers, answered = os.pipe()
    pid = os.fork()
    if pid:
        os.close(waits)
        os.close(answered)
        return Child(pid, told, answers)

    def wait() -> None:
        os.read(waits, 1)

    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(PATIENCE))
        try:
            answer: object = "answered", work(wait)
        except BaseException:  # noqa: BLE001 - the parent raises it
            answer = "failed", traceback.format_exc()
        os.write(answered, json.dumps(answer).encode())
        save_in_child()
    finally:
        os._exit(0)
