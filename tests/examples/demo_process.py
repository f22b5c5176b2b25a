"""How a test runs the demo as its users do, and finds out what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.servers.watchdog import family, runs
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
# Ended by their number and not by the time, so that they are as many on a busy machine.
SMALL = ("--employees", "200", "--online", "15", "--requests", "300", "--seconds", "60", "--concurrency", "4")
_DEADLINE = 120.0


class Demo:
    """A running demo.

    Args:
        process: it.
        output: the file it writes to.
        folder: its folder for temporary files.
    """

    def __init__(self, process: subprocess.Popen[bytes], output: Path, folder: Path) -> None:
        self.process = process
        self._output = output
        self._folder = folder
        self._pids: list[int] = []

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self._output.read_text()

    def says(self, words: str) -> str:
        """Wait until it has written these words, and return everything."""
        end = time.monotonic() + _DEADLINE
        while words not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.02)
        self._pids = family(self.process.pid)
        return self.said

    def told(self, number: int) -> int:
        """Send it a signal and return its exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(_DEADLINE)

    def leaves_nothing(self, *, within: float = 0.0) -> bool:
        """Answer whether no process and no temporary file of its is left."""
        eventually(lambda: not self._left(), timeout=within)
        return True

    def _left(self) -> list[object]:
        return [*filter(runs, self._pids), *self._folder.iterdir()]


@contextmanager
def demo(tmp_path: Path, *words: str) -> Iterator[Demo]:
    """Run the demo with these arguments; one that still runs in the end is killed."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    output = tmp_path / "output"
    env = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    with (
        output.open("wb") as written,
        subprocess.Popen(
            [sys.executable, "-m", "examples.demo", *words],
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Demo(process, output, folder)
        finally:
            process.kill()
