"""Whether the SQL keeps the e-mail rule of Python, under both locales."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmiddleware.address import normalise
from ctxmiddleware.sources.addresses import pattern
from examples.servers.postgres import Postgres

from ..matrix import Cases
from .hr import TABLES, UP, Connection, apply, ask, ask_many, employ, one

KELVIN = "\u212a"
DOTTED_I = "\u0130"
NBSP = "\u00a0"

ODD = [
    "plus+tag@x.org",
    '"quoted local"@x.org',
    "o'brien@x.org",
    "dots.in.it@x.org",
    "under_score@x.org",
    "per%cent@x.org",
    "star*@x.org",
    "comma,comma@x.org",
    "back\\slash@x.org",
    "(a@x.org)",
    "{a,b}@x.org",
    f"{DOTTED_I}pek@x.org",
    f"{KELVIN}elvin@x.org",
    "\u00fcml\u00e4ut@x.org",
    "\u7528\u6237@x.org",
    "\U0001f600@x.org",
    "victor@x.org",
    "vv",
    f"{NBSP}nbsp@x.org",
    "\u2003em-space@x.org",
    "\x1c\x85controls@x.org\x1f",
    "null",
    "$$; drop schema hr cascade; --",
]


@pytest.fixture(scope="module")
def directory(server: Postgres) -> Iterator[Connection]:
    """A database with one employee for each odd address, stored in another spelling of it."""
    name = "migrations_directory"
    with psycopg.connect(server.create_database(name), autocommit=True) as connection:
        apply(connection, TABLES, UP)
        for number, email in enumerate(ODD):
            employ(connection, number, f"\t {email.swapcase() if email.isascii() else email}\v\n")
        yield connection
    server.drop_database(name)


@pytest.fixture(scope="module")
def employee_of_any_name(server: Postgres) -> Iterator[Connection]:
    """A database with one employee, kept over all examples of a property."""
    name = "migrations_addresses"
    with psycopg.connect(server.create_database(name), autocommit=True) as connection:
        apply(connection, TABLES, UP)
        employ(connection, 1, "")
        yield connection
    server.drop_database(name)


@pytest.mark.parametrize("email", ODD)
def test_an_odd_address_finds_its_own_employee_only(directory: Connection, email: str) -> None:
    """Characters with a meaning in SQL, JSON, LIKE or URLs are plain characters here."""
    context = ask(directory, f" {email}\r\f")
    assert context is not None
    assert context.employee.id == ODD.index(email)
    assert context.email == normalise(email)
    assert ask_many(directory, [email]) == {email: context}


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (f"{KELVIN}@x", "k@x"),
        (f"{DOTTED_I}@x", "i@x"),
        (f"{DOTTED_I}@x", "i\u0307@x"),
        ("\u00c4@x", "\u00e4@x"),
        ("\u00df@x", "ss@x"),
        (f"a@x{NBSP}", "a@x"),
        ("\u2003a@x", "a@x"),
        ("ictor@x", "victor@x"),
        ("a_b@x", "aXb@x"),
        ("a%@x", "ab@x"),
    ],
)
def test_addresses_that_are_not_one(employee_of_any_name: Connection, stored: str, asked: str) -> None:
    """What Unicode lowering, Unicode white space or a wildcard would join stays apart, both ways."""
    for email, other in ((stored, asked), (asked, stored)):
        employee_of_any_name.execute("update hr.employees set email = %s", [email])
        assert ask(employee_of_any_name, email) is not None
        assert ask(employee_of_any_name, other) is None


def test_the_installed_rule_on_every_character_there_is(directory: Connection) -> None:
    """The index's own expression changes exactly the characters that Python's rule changes, and in the same way."""
    rule = one(
        directory,
        "select pg_get_expr(indexprs, indrelid) from pg_index"
        " where indexrelid = 'hr.ctxmiddleware_employees_email_idx'::regclass",
    )
    changed = directory.execute(
        f"""
        select ascii(character), changed
        from (
          select chr(code) as character
          from generate_series(1, 1114111) as code where code not between 55296 and 57343
        ) as every,
        lateral (select {rule} as changed from (select character as email) as employees) as ruled
        where changed is distinct from character
        """.encode()
    ).fetchall()
    expected = {code: normalise(chr(code)) for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF}
    assert dict(changed) == {code: text for code, text in expected.items() if text != chr(code)}
    assert len(changed) == 26 + 6


_pieces = st.sampled_from(
    [*" \t\n\r\f\v", "v", "V", "A", "z", KELVIN, DOTTED_I, NBSP, "\u0307", "\u0131", "\u1e9e", "\\", "'", "%"]
)
_letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_texts = st.lists(_pieces | _letters, max_size=20).map("".join)
_spellings = st.sampled_from([str, str.upper, str.lower, str.casefold, str.swapcase, str.strip, normalise])
_padding = st.text(" \t\n\r\f\v\u00a0\u2003\x1c\x85v", max_size=3)


def _many(cases: Cases) -> settings:
    return settings(max_examples=400 if cases is Cases.FULL else 100, deadline=None)


def test_sql_normalises_as_python_does(employee_of_any_name: Connection, cases: Cases) -> None:
    """Whatever the text, the address a context is found under is Python's, by either function."""
    connection = employee_of_any_name

    @_many(cases)
    @given(text=_texts)
    def is_found(text: str) -> None:
        connection.execute("update hr.employees set email = %s", [text])
        context = ask(connection, text)
        assert context is not None
        assert context.employee.email == text
        assert context.email == normalise(text)
        assert ask_many(connection, [text]) == {text: context}

    is_found()


def test_sql_joins_what_python_joins(employee_of_any_name: Connection, cases: Cases) -> None:
    """Another spelling finds the employee if and only if Python calls the two one address."""

    @_many(cases)
    @given(stored=_texts, respell=_spellings, before=_padding, after=_padding)
    def are_joined(stored: str, respell: type[str], before: str, after: str) -> None:
        asked = before + respell(stored) + after
        employee_of_any_name.execute("update hr.employees set email = %s", [stored])
        assert (ask(employee_of_any_name, asked) is not None) == (normalise(stored) == normalise(asked))

    are_joined()


def test_the_pattern_for_the_tables_matches_what_python_joins(employee_of_any_name: Connection, cases: Cases) -> None:
    """It keeps the rule in the database's own regular expressions, whatever characters an address is made of."""

    @_many(cases)
    @given(stored=_texts, respell=_spellings, before=_padding, after=_padding)
    def matches(stored: str, respell: type[str], before: str, after: str) -> None:
        asked = before + respell(stored) + after
        found = employee_of_any_name.execute("select %s::text ~ %s", [stored, pattern(asked)]).fetchone()
        assert found == (normalise(stored) == normalise(asked),)

    matches()
