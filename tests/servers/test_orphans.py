"""Whether nothing is left of the servers when the process that started them ends, in whatever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.servers.watchdog import family, runs
from tests.matrix import some
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
OWNER = """
import signal, sys, time
from contextlib import ExitStack
from examples.servers import Keys, Postgres, PostgREST, SupabaseFront, Valkey

# A shell that runs the tests in the background, or nohup, has told them to ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with ExitStack() as exits:
    valkey = exits.enter_context(Valkey.start())
    postgres = exits.enter_context(Postgres.start())
    postgres.create_database("full")
    keys = Keys.mint()
    rest = exits.enter_context(
        PostgREST.start(postgres.dsn(), jwt_secret=keys.jwt_secret, schemas=["public"], anon_role="postgres"))
    exits.enter_context(SupabaseFront.start(rest.url, keys=keys))
    if "paused" in sys.argv:
        postgres.pause()
        valkey.pause()
    print("ready", flush=True)
    if "leave" not in sys.argv:
        time.sleep(600)
"""


@contextmanager
def owner(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a process that runs every server, with `folder` for temporary files; give it and all its descendants."""
    env = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process, family(process.pid)
        finally:
            process.kill()


def nothing_left(pids: list[int], folder: Path) -> bool:
    """Answer whether all these processes have ended and the folder is empty."""
    return not any(map(runs, pids)) and not list(folder.iterdir())


@pytest.mark.parametrize("number", some([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], 1))
def test_nothing_outlives_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever signal ends the owner, no server, no backend, no watchdog and no file is left."""
    with owner(tmp_path) as (process, pids):
        assert len(pids) >= 10
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        process.wait(PATIENCE)
        eventually(lambda: nothing_left(pids, tmp_path))


@pytest.mark.full
def test_paused_servers_do_not_outlive_a_killed_owner(tmp_path: Path) -> None:
    """Servers that are stopped when their owner dies are ended, too."""
    with owner(tmp_path, "paused") as (process, pids):
        process.kill()
        process.wait(PATIENCE)
        eventually(lambda: nothing_left(pids, tmp_path))


def test_nothing_is_left_when_the_owner_ends_by_itself(tmp_path: Path) -> None:
    """When the owner's process is gone after a normal end, so is everything else, without a wait."""
    with owner(tmp_path, "leave") as (process, pids):
        assert process.wait(PATIENCE) == 0
        assert nothing_left(pids, tmp_path)


@pytest.mark.full
def test_a_terminal_interrupt_reaches_the_owner_only(tmp_path: Path) -> None:
    """No server is in its owner's process group, to which a terminal sends Ctrl-C."""
    with owner(tmp_path) as (process, pids):
        group = os.getpgid(process.pid)
        assert [pid for pid in pids if runs(pid) and os.getpgid(pid) == group] == [process.pid]
