"""Who ends the servers and removes their folders when the process that started them is gone.

Run as a script by `process.py`, with the standard library alone; it learns of its parent's end by that of its stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

GRACE = 3.0


def family(pid: int) -> list[int]:
    """Return the process and all that descend from it, the eldest first."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for child, parent in _parents():
        children[parent].append(child)
    found = [pid]
    for member in found:
        found.extend(children[member])
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Send the signal to every process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _parents() -> list[tuple[int, int]]:
    if Path("/proc/self/stat").exists():
        return [pair for entry in Path("/proc").iterdir() if entry.name.isdigit() and (pair := _from_proc(entry))]
    listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [(int(pid), int(parent)) for pid, parent in (line.split() for line in listing.splitlines())]


def _from_proc(entry: Path) -> tuple[int, int] | None:
    try:
        # The name stands in parentheses and may itself hold spaces and parentheses.
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(entry.name), int(fields[1])


def runs(pid: int) -> bool:
    """Answer whether the process is there and not merely waiting to be reaped."""
    try:
        os.kill(pid, 0)
        # An orphan nobody reaps answers signals for ever.
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True


class _Charges:
    """What the parent has started and made, and not yet ended and removed."""

    def __init__(self) -> None:
        self.signals: dict[int, int] = {}
        self.folders: set[str] = set()

    def told(self, line: bytes) -> None:
        verb, subject, *rest = json.loads(line)
        if verb == "process":
            self.signals[subject] = rest[0]
        elif verb == "ended":
            self.signals.pop(subject, None)
        elif verb == "folder":
            self.folders.add(subject)
        else:
            self.folders.discard(subject)

    def end(self) -> None:
        families = {pid: family(pid) for pid in self.signals}
        for pid, number in self.signals.items():
            signal_all(families[pid], signal.SIGCONT)
            signal_all([pid], number)
        everyone = [pid for members in families.values() for pid in members]
        deadline = time.monotonic() + GRACE
        while any(map(runs, everyone)) and time.monotonic() < deadline:
            time.sleep(0.02)
        signal_all(everyone, signal.SIGKILL)
        for folder in self.folders:
            self._remove(folder)

    def _remove(self, folder: str) -> None:
        deadline = time.monotonic() + GRACE
        while os.path.exists(folder) and time.monotonic() < deadline:
            # A server in its last moments may still write into a folder while it is being emptied.
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.01)


def main() -> None:
    """Keep the charges until stdin ends or the parent changes, then end them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    charges, parent, buffer = _Charges(), int(sys.argv[1]), b""
    # A fork of the parent may hold the other end open after its death: so its pid is looked at, too.
    while os.getppid() == parent:
        if not select.select([0], [], [], 1.0)[0]:
            continue
        if not (data := os.read(0, 65536)):
            break
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            charges.told(line)
    charges.end()


if __name__ == "__main__":
    main()
