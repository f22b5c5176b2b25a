"""Whether the servers make up a project, with and without the migration, and start together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from examples.servers import Postgres, ServerFailed, SupabaseProject, Valkey, start_together

from .http import ask

CALL = "/rest/v1/rpc/get_user_context_by_email"
ROWS = """
INSERT INTO hr.regions VALUES (1, 'N', 'North');
INSERT INTO hr.slots VALUES (1, 'S1', 'Slot', 1);
INSERT INTO hr.employees VALUES (1, 'Ann@Example.com', 'Ann', NULL, 'rep', true);
INSERT INTO hr.assignments VALUES (1, 1, 1, true, '2026-01-01', NULL);
"""


class Mistaken(AbstractContextManager[Valkey]):
    """A server whose start has a mistake in it."""

    def __enter__(self) -> Valkey:
        raise ZeroDivisionError

    def __exit__(self, *_: object) -> None:
        return None


def test_a_migrated_project_answers_with_a_context(postgres: Postgres) -> None:
    """Through front, PostgREST and the shipped function comes the context of the user."""
    with SupabaseProject.start(postgres, database="migrated") as project, project.front() as front:
        project.execute(ROWS)
        headers = {"apikey": front.secret_key, "Content-Profile": "hr"}
        answer = ask(front.port, CALL, method="POST", headers=headers, body={"p_email": "ann@example.com"})
        assert answer.status == 200
        assert answer.json()["employee"]["full_name"] == "Ann"
        assert answer.json()["regions"] == [{"id": 1, "code": "N", "name": "North"}]


def test_an_unmigrated_project_has_tables_and_no_function(postgres: Postgres) -> None:
    """Without the migration the function is missing and the tables can be read."""
    with SupabaseProject.start(postgres, database="unmigrated", migrated=False) as project, project.front() as front:
        project.execute(ROWS)
        headers = {"apikey": front.secret_key, "Content-Profile": "hr", "Accept-Profile": "hr"}
        answer = ask(front.port, CALL, method="POST", headers=headers, body={"p_email": "ann@example.com"})
        assert (answer.status, answer.json()["code"]) == (404, "PGRST202")
        for table in ("employees", "assignments", "slots", "regions"):
            assert len(ask(front.port, f"/rest/v1/{table}", headers=headers).json()) == 1


def test_servers_start_together_and_a_failed_one_is_told() -> None:
    """One that cannot run is returned as the error it is, the others run until the end."""
    with ExitStack() as exits:
        first, broken, second = start_together(exits, Valkey.start(), Valkey.start(args=["--no", "1"]), Valkey.start())
        assert isinstance(first, Valkey)
        assert isinstance(broken, ServerFailed)
        assert isinstance(second, Valkey)
        assert first.port != second.port
    assert not first.running
    assert not second.running


def test_an_error_of_another_kind_is_raised_and_the_others_end() -> None:
    """A mistake in our own code is no broken server: it is raised, and nothing is left running."""
    started: list[Valkey] = []

    @contextmanager
    def noted() -> Iterator[Valkey]:
        with Valkey.start() as valkey:
            started.append(valkey)
            yield valkey

    with pytest.raises(ZeroDivisionError), ExitStack() as exits:
        start_together(exits, Mistaken(), noted())
    assert [valkey.running for valkey in started] == [False]
