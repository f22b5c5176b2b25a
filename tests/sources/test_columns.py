"""The table queries and the function find the same users, whatever the type and the collation of employees.email."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

import psycopg
import pytest

from ctxmiddleware import Identity, SourceError, SourceMisconfigured, SupabaseSource
from ctxmiddleware.address import WHITE_SPACE, normalise
from ctxmiddleware.secret import Secret
from examples.servers import Postgres, SupabaseFront, SupabaseProject, create_roles
from tests.backends import ASYNCIO
from tests.matrix import Cases

from .conftest import NEAR, ODD, drop_functions, install_functions, patient
from .elsewhere import with_icu

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO])]

ANYWHERE: Final[Mapping[str, str]] = {
    "text": "text",
    "varchar": "varchar(200)",
    "char": "char(120)",
    "domain": "address",
    "C": 'text collate "C"',
}
WITH_ICU: Final[Mapping[str, str]] = {
    "text": "text",
    "citext": "citext",
    "icu": "text collate upper_first",
    "no case": "text collate no_case",
    "no case, varchar": "varchar(200) collate no_case",
    "no case, citext": "citext collate no_case",
    "no accents": "text collate no_accents",
    "no punctuation": "text collate no_punctuation",
    "numbers": "text collate by_number",
    "contractions": "text collate czech",
}
_COLLATIONS: Final = """
create collation upper_first (provider = icu, locale = 'de-u-kf-upper');
create collation no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create collation no_accents (provider = icu, locale = 'und-u-kc-true-ks-level1', deterministic = false);
create collation no_punctuation (provider = icu, locale = 'und-u-ka-shifted-ks-level2', deterministic = false);
create collation by_number (provider = icu, locale = 'und-u-kf-upper-kn-true-ks-level2', deterministic = false);
create collation czech (provider = icu, locale = 'cs-u-ks-level2', deterministic = false);
create extension citext;
"""
_ALPHABET: Final = "abchklsz0129.-_+@\u00e4\u00dfe\u0301\u212a\u0131\u0130\u00f1"
_SHARED: Final = "shared@example.com"
_CASES = [("packaged", name) for name in ANYWHERE] + [("icu", name) for name in WITH_ICU] + [("packaged", "generated")]


def addresses(count: int) -> list[str]:
    """Return addresses as they are stored: odd ones, and random ones that differ in little."""
    rng = random.Random(13)
    some = {"".join(rng.choices(_ALPHABET, k=rng.randrange(1, 9))) for _ in range(count)}
    found = {normalise(each): each for each in [*ODD, *NEAR, *sorted(some)]}
    return [_spelled(each, rng) for each in found.values() if normalise(each)]


def _spelled(email: str, rng: random.Random) -> str:
    cased = "".join(rng.choice((each, each.upper())) if each.isascii() else each for each in email)
    blank = ["".join(rng.choices(WHITE_SPACE, k=rng.randrange(3))) for _ in range(2)]
    return blank[0] + cased + blank[1] if rng.random() < 0.5 else cased


@pytest.fixture(scope="module")
def servers(postgres: Postgres) -> Iterator[Mapping[str, SupabaseProject]]:
    """A project on the packaged server, and one with ICU and citext where this machine has such a server."""
    with ExitStack() as stack:
        running = {"packaged": postgres}
        account = with_icu()
        if account is not None:
            running["icu"] = stack.enter_context(Postgres.start(account=account))
            create_roles(running["icu"])
        projects = {
            name: stack.enter_context(SupabaseProject.start(server, database=f"columns_{name}"))
            for name, server in running.items()
        }
        projects["packaged"].execute("create domain address as text")
        if account is not None:
            projects["icu"].execute(_COLLATIONS)
        yield projects


@pytest.fixture(scope="module")
def volume(cases: Cases) -> int:
    """How many random addresses there are."""
    return 400 if cases is Cases.FULL else 40


@pytest.fixture(scope="module", params=_CASES, ids=lambda case: "-".join(case))
def column(request: pytest.FixtureRequest, servers: Mapping[str, SupabaseProject], volume: int) -> SupabaseProject:
    """A project whose employees have these addresses in a column of one type."""
    server, name = request.param
    if server not in servers:
        pytest.skip("needs a PostgreSQL with ICU and citext on the path")
    project = servers[server]
    project.execute("truncate hr.employees cascade")
    if name == "generated":
        project.execute(
            "alter table hr.employees drop column email; alter table hr.employees add column mail text,"
            " add column email text generated always as (mail || E' \\t') stored not null"
        )
        install_functions(project)
    else:
        kind = (ANYWHERE if server == "packaged" else WITH_ICU)[name]
        project.execute(f"alter table hr.employees alter column email type {kind}", reload=True)
    target = "mail" if name == "generated" else "email"
    rows = [*addresses(volume), f" {_SHARED}", _SHARED.upper()]
    with psycopg.connect(project.dsn, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"insert into hr.employees (id, {target}, full_name, job_title, role, is_active)"
            " values (%s, %s, 'A', null, 'rep', true)",
            list(enumerate(rows, 1)),
        )
    return project


async def found(front: SupabaseFront, origin: str, count: int) -> dict[str, object]:
    """Return what a source says of every address and of some that are not stored, and check by which way."""
    asked = [normalise(each) for each in addresses(count)]
    strangers = [f"{each}a" for each in asked[:10]] + [each[:-1] for each in asked[:10]] + ["%", "a*", "\uffff"]
    answers: dict[str, object] = {}
    async with SupabaseSource(front.url, Secret(front.secret_key), pool=patient()) as source:
        for email in dict.fromkeys([*asked, *strangers]):
            if not normalise(email):
                continue
            loaded = await source.fetch(Identity(email))
            assert loaded.origin == origin
            answers[email] = None if loaded.value is None else (loaded.value.employee.id, loaded.value.email)
        with pytest.raises(SourceError, match="more than one employee"):
            await source.fetch(Identity(_SHARED))
    return answers


async def test_the_tables_and_the_function_find_the_same_users(column: SupabaseProject, volume: int) -> None:
    """Every address in every spelling, an address of two employees, and none under what is not stored."""
    with column.front() as front:
        by_function = await found(front, "rpc", volume)
        drop_functions(column)
        try:
            by_tables = await found(front, "legacy", volume)
        finally:
            install_functions(column)
    assert sum(answer is not None for answer in by_function.values()) >= len(addresses(volume))
    assert by_tables == by_function


async def test_a_column_that_cannot_be_searched_is_refused(servers: Mapping[str, SupabaseProject]) -> None:
    """Where a collation ignores what all addresses begin with, the message names the migration."""
    if "icu" not in servers:
        pytest.skip("needs a PostgreSQL with ICU on the path")
    project = servers["icu"]
    drop_functions(project)
    project.execute(
        "truncate hr.employees cascade;"
        "alter table hr.employees alter column email type text collate no_punctuation;"
        "insert into hr.employees select n, 'user' || n || '@example.com', 'A', null, 'rep', true"
        " from generate_series(1, 1001) as n",
        reload=True,
    )
    with project.front() as front:
        async with SupabaseSource(front.url, Secret(front.secret_key), pool=patient()) as source:
            with pytest.raises(SourceMisconfigured, match=r"collation of employees\.email .*`ctxmiddleware sql show`"):
                await source.fetch(Identity("user1@example.com"))
    install_functions(project)
