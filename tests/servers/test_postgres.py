"""Whether PostgreSQL runs in both locales and as every account, and is disturbed as told."""

from __future__ import annotations

import ctypes
import socket
import struct
from pathlib import Path

import psycopg
import pytest

from examples.servers import Postgres
from examples.servers.accounts import Account, accounts
from tests.matrix import some
from tests.waiting import eventually

IPC_STAT = 2
# May this connection be encrypted? The server answers with one letter.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def busy(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Answer whether the server still owes this connection an answer."""
    connection.pgconn.consume_input()
    return bool(connection.pgconn.is_busy())


def is_silent(postgres: Postgres) -> bool:
    """Return whether a new connection's first message stays without an answer."""
    with socket.create_connection(("127.0.0.1", postgres.port), timeout=0.3) as new:
        new.sendall(SSL_REQUEST)
        try:
            new.recv(1)
        except TimeoutError:
            return True
    return False


def lowered(dsn: str) -> str:
    """Return how this database lowers a letter inside and one outside of ASCII."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT lower('Aİ')").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    "account", some(accounts(), 1), ids=lambda account: account.user or " ".join(account.prefix) or "direct"
)
def test_runs_as_every_account_that_is_open_here(account: Account) -> None:
    """It serves, is killed and restarts with its data, as an ordinary user and in both ways that root has."""
    with Postgres.start(account=account) as postgres:
        with psycopg.connect(postgres.create_database("kept"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        postgres.kill()
        postgres.restart()
        with psycopg.connect(postgres.dsn("kept")) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_killed_it_leaves_no_shared_memory() -> None:
    """A server that was killed leaves nothing in the kernel either."""

    def segment_exists(number: int) -> bool:
        return bool(ctypes.CDLL(None).shmctl(number, IPC_STAT, ctypes.create_string_buffer(1024)) == 0)

    with Postgres.start() as postgres:
        with psycopg.connect(postgres.dsn()) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        segment = int((Path(row[0]) / "postmaster.pid").read_text().splitlines()[6].split()[1])
        assert segment_exists(segment)
        postgres.kill()
        assert segment_exists(segment)
    assert not segment_exists(segment)


def test_the_locales_lower_differently(postgres: Postgres, postgres_utf8: Postgres) -> None:
    """The two locales are the two that disagree on letters outside of ASCII."""
    assert lowered(postgres.dsn()) == "aİ"
    assert lowered(postgres_utf8.dsn()) == "ai"


def test_commits_are_counted_by_database(postgres: Postgres) -> None:
    """Each transaction of a client is counted once in its database, opening a session is one, and asking is none."""
    dsn = postgres.create_database("counted")
    try:
        before = postgres.commits("counted")
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _ in range(7):
                connection.execute("SELECT 1", prepare=False)
        eventually(lambda: postgres.commits("counted") == before + 8)
        assert postgres.commits("counted") == before + 8
    finally:
        postgres.drop_database("counted")


def test_commits_of_a_missing_database_are_an_error(postgres: Postgres) -> None:
    """A wrong name is not a nought."""
    with pytest.raises(LookupError, match="'nowhere'"):
        postgres.commits("nowhere")


def test_paused_it_answers_no_open_connection() -> None:
    """A pause stops the sessions that are open, not only the accepting of new ones."""
    with Postgres.start() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        postgres.pause()
        connection.pgconn.send_query(b"SELECT 1")
        assert is_silent(postgres)
        assert busy(connection)
        postgres.resume()
        eventually(lambda: not busy(connection))
        while connection.pgconn.get_result():
            pass
