"""Whether a server process is started, disturbed and ended as told, and says why where it cannot run."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.servers.child import Launch, run_to_end
from examples.servers.failure import ServerFailed
from examples.servers.guard import temporary_folder
from examples.servers.ports import free_port
from examples.servers.process import ServerProcess
from examples.servers.watchdog import family, runs
from tests.waiting import PATIENCE, eventually

# Takes connections and gives each its process id.
ECHO = """
import os, socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(str(os.getpid()).encode())
        connection.close()
"""
DEAF = "trap '' TERM; echo $$; exec sleep 600"
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).wait()"


def echo(port: int) -> Launch:
    """Return how the server of these tests is executed."""
    return Launch([sys.executable, "-c", ECHO, str(port)])


def answers(port: int) -> bool:
    """Answer whether it serves already; a moment of silence means not yet."""
    return said(port, timeout=1.0) != b""


def said(port: int, timeout: float = PATIENCE) -> bytes:
    """Return what it tells a new connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        return connection.recv(100)


def alive(pid: int) -> bool:
    """Answer whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server that tells its process id."""
    with ServerProcess("Echo", echo, answers, log=tmp_path / "log") as process:
        yield process


def test_serves_inside_with_and_is_gone_after_it(tmp_path: Path) -> None:
    """The server answers under its own process id as soon as `with` begins, and has ended when it is left."""
    with ServerProcess("Echo", echo, answers, log=tmp_path / "log") as server:
        assert said(server.port) == str(server.pid).encode()
        pid = server.pid
    assert not alive(pid)
    assert not server.running


def test_has_a_session_of_its_own(server: ServerProcess) -> None:
    """A Ctrl-C in the terminal reaches the parent only, which then decides the order."""
    assert os.getsid(server.pid) == server.pid


def test_paused_accepts_and_answers_nothing_until_resumed(server: ServerProcess) -> None:
    """A paused server keeps its port and its silence; resumed, it is the same process."""
    pid = server.pid
    server.pause()
    with pytest.raises(TimeoutError):
        said(server.port, timeout=0.2)
    assert server.running
    server.resume()
    assert eventually(lambda: said(server.port)) == str(pid).encode()


def test_killed_refuses_and_restarts_on_its_port(server: ServerProcess) -> None:
    """After a kill nobody listens; after a restart another process listens on the same port."""
    port, pid = server.port, server.pid
    server.kill()
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        said(port)
    server.restart()
    assert server.port == port
    assert said(port) == str(server.pid).encode() != str(pid).encode()


def test_restart_ends_a_server_that_runs_or_is_paused(server: ServerProcess) -> None:
    """A restart needs no stop before it, and a paused process does not stand in its way."""
    first = server.pid
    server.pause()
    server.restart()
    assert not alive(first)
    assert said(server.port)


def test_a_paused_server_is_ended_too(tmp_path: Path) -> None:
    """A test that fails between pause and resume leaves no stopped process behind."""
    with ServerProcess("Echo", echo, answers, log=tmp_path / "log") as server:
        pid = server.pid
        server.pause()
    assert not alive(pid)


def test_ends_with_all_its_descendants(tmp_path: Path) -> None:
    """Killing a server kills the processes it has started."""
    launch = Launch([sys.executable, "-c", PARENT])
    with ServerProcess("Parent", lambda _: launch, lambda _: True, log=tmp_path / "log") as server:
        members = eventually(lambda: len(found := family(server.pid)) == 2 and found)
        assert members
        server.kill()
        assert not any(map(runs, members))


def test_takes_another_port_when_its_own_was_taken(tmp_path: Path) -> None:
    """A port that somebody else took in the meantime is not the end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free := free_port()])
        with ServerProcess("Echo", echo, answers, log=tmp_path / "log", choose_port=lambda: next(ports)) as server:
            assert server.port == free
            assert said(server.port)


def test_takes_another_port_when_its_own_is_snatched_at_the_last_moment(tmp_path: Path) -> None:
    """A port that was free when it was chosen and is taken when the server wants it is not the end either."""
    snatched: list[socket.socket] = []

    def snatch(port: int) -> Launch:
        if not snatched:
            snatched.append(socket.create_server(("127.0.0.1", port)))
        return echo(port)

    with ServerProcess("Echo", snatch, answers, log=tmp_path / "log") as server, snatched[0] as stranger:
        assert server.port != stranger.getsockname()[1]
        assert said(server.port)
    assert "Address already in use" in (tmp_path / "log").read_text()


def test_a_stranger_on_the_port_is_not_taken_for_the_server(server: ServerProcess, tmp_path: Path) -> None:
    """Where another server answers on the port, ours has not started: it gives up after some ports and says so."""
    taken = ServerProcess("Second", echo, answers, log=tmp_path / "second", choose_port=lambda: server.port)
    with pytest.raises(ServerFailed, match="Second cannot run here: 5 ports in a row were taken"), taken:
        pass


def test_a_program_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    """The error names the component, its exit status and the end of its log."""
    launch = Launch([sys.executable, "-c", "import sys; sys.exit('no such luck')"])
    with (
        pytest.raises(ServerFailed) as failed,
        ServerProcess("Loser", lambda _: launch, answers, log=tmp_path / "log"),
    ):
        pass
    assert failed.value.component == "Loser"
    assert failed.value.reason == "it ended with status 1"
    assert failed.value.log == "no such luck"
    assert str(failed.value) == "Loser cannot run here: it ended with status 1\nno such luck"


def test_a_program_that_is_not_there_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    """A missing program fails at once."""
    launch = Launch([str(tmp_path / "missing")])
    with (
        pytest.raises(ServerFailed, match="it ended with status 127"),
        ServerProcess("Missing", lambda _: launch, answers, log=tmp_path / "log"),
    ):
        pass


@pytest.mark.full
def test_a_server_that_is_never_ready_is_ended_at_its_deadline(tmp_path: Path) -> None:
    """A server that hangs at its start is an error after the deadline, and is killed where it does not obey."""

    def deaf(port: int) -> Launch:
        return Launch(["/bin/sh", "-c", DEAF])

    process = ServerProcess("Deaf", deaf, lambda _: False, log=tmp_path / "log", deadline=2.0)
    with pytest.raises(ServerFailed, match="it was not ready within 2 s"), process:
        pass
    pids = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert len(pids) == 1
    assert not alive(pids[0])


def test_use_outside_of_with_is_an_error(tmp_path: Path) -> None:
    """A server that was never started says what to write."""
    with pytest.raises(RuntimeError, match="use it inside `with`"):
        ServerProcess("Echo", echo, answers, log=tmp_path / "log").kill()


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    """A command that ends badly is named with its status and its output."""
    with pytest.raises(ServerFailed, match="ended with status 3") as failed:
        run_to_end("Tool", Launch(["/bin/sh", "-c", "echo oh; exit 3"]), tmp_path / "log", timeout=10)
    assert failed.value.log == "oh"


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    """A command that takes too long is killed, and the error says how long it had."""
    with pytest.raises(ServerFailed, match="took more than 1 s"):
        run_to_end("Tool", Launch(["/bin/sh", "-c", "echo $$; sleep 600"]), tmp_path / "log", timeout=1.0)
    assert not alive(int((tmp_path / "log").read_text()))


def test_a_temporary_folder_is_private_and_removed() -> None:
    """Others may not look into a server's folder, and nothing is left of it."""
    with temporary_folder("test") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
    assert not folder.exists()


def test_ports_are_never_given_twice() -> None:
    """Servers that start at the same time do not get the same port."""
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
