"""Whether a signal that asks the demo to end is obeyed wherever it arrives."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import os, signal, time
from examples.demo import leaving

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

leaving.by_signal()
try:
    {arrives}
    time.sleep(60)
except leaving.ToldToLeave:
    print("left")
"""


def _run(arrives: str) -> str:
    command = [sys.executable, "-c", _SCRIPT.format(arrives=arrives)]
    return subprocess.run(command, check=True, timeout=50, capture_output=True, text=True).stdout


def test_a_signal_raises_where_it_arrives() -> None:
    """In the main thread's own code."""
    assert _run("os.kill(os.getpid(), signal.SIGTERM)") == "left\n"


def test_a_signal_that_arrives_in_a_finalizer_is_sent_again() -> None:
    """Python discards an exception that is raised in one, and the demo would go on."""
    assert _run("Finalized()") == "left\n"
