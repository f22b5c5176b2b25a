"""Whether the real PostgREST is fetched whole, serves, and follows its database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.servers import Keys, Postgres, PostgREST, ServerFailed, SupabaseProject
from examples.servers.postgrest import program
from tests.waiting import eventually

from .http import ask

UNREACHABLE = ("PGRST000", "PGRST001", "PGRST002")
FETCH = """
import sys
from pathlib import Path
from examples.servers.postgrest import program
print(program(Path(sys.argv[1])))
"""


@pytest.fixture
def project(postgres: Postgres) -> Iterator[SupabaseProject]:
    """A project of this test's own."""
    with SupabaseProject.start(postgres, database="postgrest", pool=2) as project:
        yield project


def bearer(token: str) -> dict[str, str]:
    """Return the headers of a request to schema hr with this token."""
    return {"Authorization": f"Bearer {token}", "Accept-Profile": "hr"}


@pytest.mark.full
def test_fetched_by_many_at_once_it_is_whole_for_all(tmp_path: Path) -> None:
    """Two processes that fetch it at the same time both get the right program, and no half of it stays."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FETCH, str(tmp_path / "home")]
    fetchers = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    programs = {Path(fetcher.communicate(timeout=120)[0].strip()) for fetcher in fetchers}
    assert len(programs) == 1
    assert list((tmp_path / "home").iterdir()) == list(programs)
    version = subprocess.run([*programs, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("PostgREST 12.0.2")


@pytest.mark.full
def test_a_spoilt_program_is_refused_and_fetched_anew(tmp_path: Path) -> None:
    """A program whose sum is wrong never runs; the next start fetches it again."""
    found = program(tmp_path)
    with found.open("ab") as spoilt:
        spoilt.write(b"x")
    with pytest.raises(ServerFailed, match="sha256"):
        program(tmp_path)
    assert program(tmp_path) == found


def test_serves_what_a_role_may_read(project: SupabaseProject) -> None:
    """service_role reads the tables, anonymous requests are refused, and rows come as JSON."""
    project.execute("INSERT INTO hr.regions VALUES (1, 'N', 'North')")
    answer = ask(project.postgrest.port, "/regions", headers=bearer(project.keys.service_role))
    assert (answer.status, answer.json()) == (200, [{"id": 1, "code": "N", "name": "North"}])
    assert ask(project.postgrest.port, "/regions", headers={"Accept-Profile": "hr"}).json()["code"] == "42501"


def test_reads_the_schema_again_when_told(project: SupabaseProject) -> None:
    """A function is known as soon as `reload_schema` has returned."""
    headers = {"Authorization": f"Bearer {project.keys.service_role}", "Content-Profile": "hr"}
    project.execute("CREATE FUNCTION hr.added() RETURNS int LANGUAGE sql AS 'SELECT 7'", reload=True)
    answer = ask(project.postgrest.port, "/rpc/added", method="POST", headers=headers, body={})
    assert (answer.status, answer.body) == (200, b"7")


def test_rows_are_cut_off_where_supabase_cuts_them(project: SupabaseProject) -> None:
    """A reply holds 1000 rows at most, silently."""
    project.execute("INSERT INTO hr.regions SELECT n, n, n FROM generate_series(1, 1001) AS n")
    answer = ask(project.postgrest.port, "/regions", headers=bearer(project.keys.service_role))
    assert len(answer.json()) == 1000


def test_killed_and_restarted_it_serves_on_its_port(project: SupabaseProject) -> None:
    """Its address stays the same."""
    url = project.postgrest.url
    project.postgrest.kill()
    project.postgrest.restart()
    assert project.postgrest.url == url
    answer = ask(project.postgrest.port, "/regions", headers=bearer(project.keys.service_role))
    assert answer.status == 200


@pytest.mark.full
def test_without_its_database_it_says_so_and_recovers() -> None:
    """While PostgreSQL is down requests end up with 503 and a code for that, and with 200 once it is back."""
    with Postgres.start() as postgres, SupabaseProject.start(postgres) as project:
        headers = bearer(project.keys.service_role)
        postgres.kill()
        # The first answers over a broken connection may be 57P01, or 400 with an empty code.
        eventually(lambda: ask(project.postgrest.port, "/regions", headers=headers).json()["code"] in UNREACHABLE)
        assert ask(project.postgrest.port, "/regions", headers=headers).status == 503
        postgres.restart()
        eventually(lambda: ask(project.postgrest.port, "/regions", headers=headers).status == 200, timeout=40)


@pytest.mark.full
def test_a_wrong_database_is_a_clear_error() -> None:
    """Where it cannot reach its database it is never ready, and the error holds its own words."""
    with (
        pytest.raises(ServerFailed, match="PostgREST cannot run here") as failed,
        PostgREST.start("postgresql://nobody@127.0.0.1:1/none", jwt_secret=Keys.mint().jwt_secret, deadline=5.0),
    ):
        pass
    assert "Connection refused" in failed.value.log
