"""What the two functions answer, compared with the rows they answer from."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import psycopg
import pytest

from ctxmiddleware.address import normalise
from ctxmiddleware.model import Assignment, Employee, Region, Slot, UserContext

from .hr import Connection, ask, ask_many, assign, employ, one, one_locale


@one_locale
def test_every_field_of_a_context(installed: Connection) -> None:
    """A context carries the rows as they are, lists by id, slots and regions once each, ended assignments too."""
    installed.execute("insert into hr.employees values (7, ' Ann@X.org', 'Ann', 'Rep', 'user', true)")
    installed.execute(
        "insert into hr.assignments values"
        " (30, 7, 3, false, '2024-01-01', '2024-12-31'), (9, 7, 1, true, '2025-01-01', null),"
        " (11, 7, 3, false, '2023-01-01', '2023-12-31')"
    )
    answer = one(installed, "select hr.get_user_context_by_email('ann@x.ORG')")
    assert answer == {
        "email": "ann@x.org",
        "employee": {
            "id": 7,
            "email": " Ann@X.org",
            "full_name": "Ann",
            "job_title": "Rep",
            "role": "user",
            "is_active": True,
        },
        "assignments": [
            _assignment(9, slot_id=1, is_primary=True, starts_on="2025-01-01", ends_on=None),
            _assignment(11, slot_id=3, is_primary=False, starts_on="2023-01-01", ends_on="2023-12-31"),
            _assignment(30, slot_id=3, is_primary=False, starts_on="2024-01-01", ends_on="2024-12-31"),
        ],
        "slots": [
            {"id": 1, "code": "A", "name": "a", "region_id": 2},
            {"id": 3, "code": "C", "name": "c", "region_id": 2},
        ],
        "regions": [{"id": 2, "code": "S", "name": "South"}],
    }


def _assignment(id: int, **fields: object) -> dict[str, object]:  # noqa: A002 - the field's name
    return {"id": id, "employee_id": 7, **fields}


@one_locale
def test_an_employee_without_assignments_has_empty_lists(installed: Connection) -> None:
    """Nothing assigned is `[]` three times, never null."""
    employ(installed, 1, "a@x")
    answer = one(installed, "select hr.get_user_context_by_email('a@x')")
    assert [answer[name] for name in ("assignments", "slots", "regions")] == [[], [], []]


@one_locale
def test_an_inactive_employee_is_answered(installed: Connection) -> None:
    """Whether an inactive employee may come in is decided by the reader, not by the database."""
    employ(installed, 1, "a@x", is_active=False)
    context = ask(installed, "a@x")
    assert context is not None
    assert context.employee.is_active is False


@one_locale
@pytest.mark.parametrize("email", [None, "b@x", "", " ", "a@", "%", "a_x", "a@x\u00a0"])
def test_an_unknown_user_is_null(installed: Connection, email: str | None) -> None:
    """NULL, an empty address and patterns that would match with LIKE are nobody."""
    employ(installed, 1, "a@x")
    assert ask(installed, email) is None


@one_locale
def test_big_ids_and_foreign_date_styles_come_through(installed: Connection) -> None:
    """The largest bigint is not rounded and a session's date style does not reach the answer."""
    installed.execute("set datestyle = 'German, DMY'")
    employ(installed, 2**63 - 1, "a@x")
    assign(installed, 2**63 - 2, 2**63 - 1, 4)
    context = ask(installed, "a@x")
    assert context is not None
    assert context.employee.id == 2**63 - 1
    assert context.assignments[0].starts_on.isoformat() == "2024-02-29"


@one_locale
def test_batch_keys_are_the_addresses_as_sent(installed: Connection) -> None:
    """Each spelling has its own key, a repeated one has one, an unknown user is null, NULL elements are not there."""
    employ(installed, 1, "a@x")
    found = ask_many(installed, ["a@x", " A@X\t", None, "a@x", "b@x", ""])
    assert set(found) == {"a@x", " A@X\t", "b@x", ""}
    assert found["a@x"] == found[" A@X\t"] == ask(installed, "a@x")
    assert found["b@x"] is None
    assert found[""] is None


@one_locale
@pytest.mark.parametrize("emails", ["'{}'", "null", "array[null]::text[]"])
def test_batch_of_nobody_is_an_empty_object(installed: Connection, emails: str) -> None:
    """An empty array, NULL and an array of NULLs give `{}`."""
    assert one(installed, f"select hr.get_user_contexts_by_emails({emails})") == {}


@one_locale
def test_a_shared_address_fails_closed(installed: Connection) -> None:
    """Two employees under one address: one call raises without naming it, a batch leaves it out and serves the rest."""
    employ(installed, 1, "Shared@x")
    employ(installed, 2, "shared@X ")
    employ(installed, 3, "own@x")
    with pytest.raises(psycopg.errors.CardinalityViolation) as raised:
        ask(installed, "SHARED@x")
    assert raised.value.sqlstate == "21000"
    assert "shared" not in str(raised.value).replace("share this", "").lower()
    found = ask_many(installed, ["shared@x", "own@x", "Shared@x", "none@x"])
    assert set(found) == {"own@x", "none@x"}
    assert found["own@x"] == ask(installed, "own@x")


@one_locale
def test_both_functions_answer_as_the_tables_do(installed: Connection) -> None:
    """Over random rows, every context is byte for byte what joining the four tables in Python gives."""
    dice = random.Random(2)
    people = range(1, 41)
    for person in people:
        employ(installed, person, f" Person.{person}@Example.org", is_active=dice.random() < 0.8)
    for number in dice.sample(range(1, 1000), 90):
        assign(installed, number, dice.choice(people), dice.randint(1, 4))
    asked = [f"person.{person}@EXAMPLE.org" for person in people]
    batch = ask_many(installed, asked)
    for person, email in zip(people, asked, strict=True):
        expected = msgspec.json.encode(_joined(installed, person))
        assert msgspec.json.encode(ask(installed, email)) == expected
        assert msgspec.json.encode(batch[email]) == expected


def _joined(connection: Connection, person: int) -> UserContext:
    """Build the context from plain table queries."""

    def rows(table: str, column: str, keys: object) -> object:
        query = f"select coalesce(json_agg(t order by id), '[]') from hr.{table} as t where {column} = any (%s)"
        return one(connection, query, [keys])

    employee = msgspec.convert(rows("employees", "id", [person]), tuple[Employee])[0]
    assignments = msgspec.convert(rows("assignments", "employee_id", [person]), tuple[Assignment, ...])
    slots = msgspec.convert(rows("slots", "id", [a.slot_id for a in assignments]), tuple[Slot, ...])
    regions = msgspec.convert(rows("regions", "id", [s.region_id for s in slots]), tuple[Region, ...])
    return UserContext(normalise(employee.email), employee, assignments, slots, regions)


@one_locale
def test_a_context_is_of_one_moment(installed: Connection, dsn: str) -> None:
    """While somebody is moved to and fro in transactions, every reader sees all of before or all of after."""
    employ(installed, 1, "a@x")
    assign(installed, 1, 1, 1)
    done = threading.Event()

    def read() -> set[tuple[int, int, int]]:
        seen = set()
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not done.is_set():
                for context in (ask(connection, "a@x"), ask_many(connection, ["a@x"])["a@x"]):
                    assert context is not None
                    seen.add((context.assignments[0].slot_id, context.slots[0].id, context.regions[0].id))
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for step in range(300):
                with installed.transaction():
                    installed.execute("update hr.assignments set slot_id = %s where id = 1", [1 + step % 2])
                    installed.execute("update hr.slots set name = name || '.' where id = %s", [1 + step % 2])
        finally:
            done.set()
        seen = set().union(*(reader.result(timeout=30) for reader in readers))
    assert seen == {(1, 1, 2), (2, 2, 1)}
