"""Whether the front speaks both dialects: PostgREST 12.0.2's own answers, and the same in the form of 16."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from examples.servers import Keys, Postgres, SupabaseFront, SupabaseProject
from examples.servers.supabase.app import Dialect
from examples.servers.supabase.keys import signed

from .http import Answer, ask

SCHEMA = """
CREATE TABLE hr.closed (id int PRIMARY KEY);
CREATE TABLE hr.open (id int PRIMARY KEY, name text);
INSERT INTO hr.open VALUES (1, 'Hebdon, John'), (2, 'Williams, Mary'), (3, 'Double"Quote"McGraw"'), (5, 'x');
GRANT USAGE ON SCHEMA hr TO anon;
GRANT SELECT ON hr.open TO anon, service_role;
CREATE FUNCTION hr.nothing() RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION hr.stale(a text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION hr.closed_function(address text) RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE ALL ON FUNCTION hr.closed_function FROM public;
CREATE FUNCTION hr.inside() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT id FROM hr.gone); END';
CREATE FUNCTION hr.inside_function() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN hr.gone(1); END';
CREATE FUNCTION hr.payment() RETURNS int LANGUAGE plpgsql AS $$
BEGIN RAISE sqlstate 'PT402' USING message = 'Payment Required', detail = 'Quota exceeded'; END $$;
"""
SINGLE = {"Accept": "application/vnd.pgrst.object+json"}
TOKEN_ERROR = 'Bearer error="invalid_token", error_description="{}"'


@dataclass(frozen=True)
class Case:
    """A request, and what each dialect answers.

    Args:
        path: behind the prefix.
        old: status, code and message of 12.0.2; None for a message that says nothing about the dialect.
        new: the same of 16.
        method: GET or POST.
        headers: besides the key and the profile.
        body: sent as JSON.
        token: the claims of the token to send; a string is sent as it is.
        hint: the hint in 16.
        authenticate: the WWW-Authenticate header in 16.
    """

    path: str
    old: tuple[int, str, str | None]
    new: tuple[int, str, str | None]
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    token: Mapping[str, str | int] | str | None = None
    hint: str | None = None
    authenticate: str | None = None

    def ask(self, front: SupabaseFront) -> Answer:
        """Send the request to a front of either dialect."""
        profile = "Accept-Profile" if self.method == "GET" else "Content-Profile"
        headers = {"apikey": front.anon_key, profile: "hr"} | dict(self.headers)
        if self.token is not None:
            secret = front.keys.jwt_secret
            token = self.token if isinstance(self.token, str) else signed(secret, **self.token)
            headers["Authorization"] = f"Bearer {token}"
        return ask(front.port, f"/rest/v1{self.path}", method=self.method, headers=headers, body=self.body)


NO_FUNCTION = "Could not find the function hr.{} in the schema cache"
DIFFERENT = {
    "stale function": Case(
        "/rpc/stale",
        (404, "42883", "function hr.stale(a => text) does not exist"),
        (404, "PGRST202", NO_FUNCTION.format("stale(a)")),
        method="POST",
        body={"a": "x"},
    ),
    "unknown schema": Case(
        "/open",
        (406, "PGRST106", "The schema must be one of the following: public, hr"),
        (406, "PGRST106", "Invalid schema: unknown"),
        headers={"Accept-Profile": "unknown"},
        hint="Only the following schemas are exposed: public, hr",
    ),
    "unknown schema of a call": Case(
        "/rpc/nothing",
        (406, "PGRST106", "The schema must be one of the following: public, hr"),
        (406, "PGRST106", "Invalid schema: unknown"),
        method="POST",
        headers={"Content-Profile": "unknown"},
        body={},
        hint="Only the following schemas are exposed: public, hr",
    ),
    "missing table": Case(
        "/missing",
        (404, "42P01", 'relation "hr.missing" does not exist'),
        (404, "PGRST205", "Could not find the table 'hr.missing' in the schema cache"),
    ),
    "no single row": Case(
        "/open?id=eq.9",
        (406, "PGRST116", "JSON object requested, multiple (or no) rows returned"),
        (406, "PGRST116", "Cannot coerce the result to a single JSON object"),
        headers=SINGLE,
    ),
    "many rows for one": Case(
        "/open",
        (406, "PGRST116", "JSON object requested, multiple (or no) rows returned"),
        (406, "PGRST116", "Cannot coerce the result to a single JSON object"),
        headers=SINGLE,
    ),
    "expired token": Case(
        "/open",
        (401, "PGRST301", "JWT expired"),
        (401, "PGRST303", "JWT expired"),
        token={"role": "anon", "exp": 1000},
        authenticate=TOKEN_ERROR.format("JWT expired"),
    ),
    "malformed token": Case(
        "/open",
        (401, "PGRST301", "JWSError (CompactDecodeError Invalid number of parts: Expected 3 parts; got 2)"),
        (401, "PGRST301", "Expected 3 parts in JWT; got 2"),
        token="a.b",
        authenticate=TOKEN_ERROR.format("Expected 3 parts in JWT; got 2"),
    ),
    "token of another key": Case(
        "/open",
        (401, "PGRST301", "JWSError JWSInvalidSignature"),
        (401, "PGRST301", "No suitable key or wrong key type"),
        token=Keys.mint().anon,
        authenticate=TOKEN_ERROR.format("No suitable key or wrong key type"),
    ),
    "role that does not exist": Case(
        "/open",
        (400, "22023", 'role "nobody_here" does not exist'),
        (401, "22023", 'role "nobody_here" does not exist'),
        token={"role": "nobody_here"},
        authenticate="Bearer",
    ),
    "unknown Accept": Case(
        "/open",
        (415, "PGRST107", "None of these media types are available: image/png"),
        (406, "PGRST107", "None of these media types are available: image/png"),
        headers={"Accept": "image/png"},
    ),
}
NO_GRANT = "permission denied for table closed"
SAME = {
    "unknown function": Case(
        "/rpc/unknown",
        (404, "PGRST202", NO_FUNCTION.format("unknown(a)")),
        (404, "PGRST202", NO_FUNCTION.format("unknown(a)")),
        method="POST",
        body={"a": 1},
    ),
    "wrong argument names": Case(
        "/rpc/closed_function",
        (404, "PGRST202", NO_FUNCTION.format("closed_function(adress)")),
        (404, "PGRST202", NO_FUNCTION.format("closed_function(adress)")),
        method="POST",
        body={"adress": 1},
        hint="Perhaps you meant to call the function hr.closed_function(address)",
    ),
    "missing table inside a function": Case(
        "/rpc/inside",
        (404, "42P01", 'relation "hr.gone" does not exist'),
        (404, "42P01", 'relation "hr.gone" does not exist'),
        method="POST",
        body={},
    ),
    "missing function inside a function": Case(
        "/rpc/inside_function",
        (404, "42883", "function hr.gone(integer) does not exist"),
        (404, "42883", "function hr.gone(integer) does not exist"),
        method="POST",
        body={},
        hint="No function matches the given name and argument types. You might need to add explicit type casts.",
    ),
    "blank among integers": Case("/open?id=in.(%20,3)", (400, "22P02", None), (400, "22P02", None)),
    "no operator": Case("/open?id=0", (400, "PGRST100", None), (400, "PGRST100", None)),
    "embedding without foreign key": Case(
        "/open?select=id,closed(id)", (400, "PGRST200", None), (400, "PGRST200", None)
    ),
    "table without grant, anonymous": Case(
        "/closed", (401, "42501", NO_GRANT), (401, "42501", NO_GRANT), authenticate="Bearer"
    ),
    "table without grant, known role": Case(
        "/closed", (403, "42501", NO_GRANT), (403, "42501", NO_GRANT), token={"role": "service_role"}
    ),
    "function without grant, anonymous": Case(
        "/rpc/closed_function",
        (401, "42501", "permission denied for function closed_function"),
        (401, "42501", "permission denied for function closed_function"),
        method="POST",
        body={"address": "x"},
        authenticate="Bearer",
    ),
    "function that raises PT402": Case(
        "/rpc/payment",
        (402, "PT402", "Payment Required"),
        (402, "PT402", "Payment Required"),
        method="POST",
        body={},
    ),
}
CASES = DIFFERENT | SAME


@pytest.fixture(scope="module")
def project(postgres: Postgres) -> Iterator[SupabaseProject]:
    """A project with something for every kind of error."""
    with SupabaseProject.start(postgres, database="dialects") as project:
        project.execute(SCHEMA, reload=True)
        project.execute("DROP FUNCTION hr.stale")
        yield project


@pytest.fixture(scope="module")
def asked(project: SupabaseProject, dialect: Dialect) -> Iterator[SupabaseFront]:
    """A front of one dialect before that project."""
    with project.front(dialect) as front:
        yield front


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_answers_each_error_in_its_dialect(asked: SupabaseFront, dialect: Dialect, case: Case) -> None:
    """Status, code and message are those of the dialect; in 16 hint and headers, too."""
    answer = case.ask(asked)
    status, code, message = case.old if dialect == "12" else case.new
    error = answer.json()
    assert (answer.status, error["code"]) == (status, code)
    assert message is None or error["message"] == message
    assert list(error) == ["code", "details", "hint", "message"]
    if dialect == "16":
        assert message is None or error["hint"] == case.hint
        assert answer.header("www-authenticate") == [case.authenticate] * (case.authenticate is not None)
        assert answer.header("proxy-status") == [f"PostgREST; error={code}"]
        assert answer.header("content-type") == ["application/json; charset=utf-8"]
    else:
        assert answer.header("proxy-status") == []


def test_each_difference_is_one() -> None:
    """No case stands among the differences whose answers are the same."""
    assert all(case.old != case.new for case in DIFFERENT.values())
    assert all(case.old == case.new for case in SAME.values())


def test_the_old_dialect_is_postgrest_s_own(project: SupabaseProject, asked: SupabaseFront, dialect: Dialect) -> None:
    """In the dialect of 12.0.2 no byte of a body and no header of PostgREST's is changed; in 16 these rows are."""
    for case in DIFFERENT.values():
        through = case.ask(asked)
        profile = "Accept-Profile" if case.method == "GET" else "Content-Profile"
        headers = {profile: "hr"} | dict(case.headers)
        if case.token is not None:
            token = case.token if isinstance(case.token, str) else signed(project.keys.jwt_secret, **case.token)
            headers["Authorization"] = f"Bearer {token}"
        direct = ask(project.postgrest.port, case.path, method=case.method, headers=headers, body=case.body)
        assert ((through.status, through.body) == (direct.status, direct.body)) == (dialect == "12")
        if dialect == "12":
            assert kept(through) == kept(direct)


def kept(answer: Answer) -> list[tuple[str, str]]:
    """Return the headers that belong to the message and not to the connection or the second."""
    passing = {"transfer-encoding", "content-length", "date"}
    return sorted((name.lower(), value) for name, value in answer.headers if name.lower() not in passing)


def test_an_empty_token_is_refused_by_16_only(asked: SupabaseFront, dialect: Dialect) -> None:
    """12.0.2 takes an empty token for an anonymous request, 16 for a bad token."""
    headers = {"apikey": asked.anon_key, "Accept-Profile": "hr", "Authorization": "Bearer "}
    answer = ask(asked.port, "/rest/v1/open?id=eq.5", headers=headers)
    if dialect == "12":
        assert answer.json() == [{"id": 5, "name": "x"}]
    else:
        message = "Empty JWT is sent in Authorization header"
        assert (answer.status, answer.json()["code"], answer.json()["message"]) == (401, "PGRST301", message)
        assert answer.header("www-authenticate") == [TOKEN_ERROR.format(message)]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("id=in.(1,3,5)", [1, 3, 5]),
        ('name=in.("Hebdon, John","Williams, Mary")', [1, 2]),
        (r'name=in.("Double\"Quote\"McGraw\"")', [3]),
        ("id=in.()", []),
        ("name=eq.Hebdon, John", [1]),
    ],
)
def test_filters_reach_the_database_as_they_are(asked: SupabaseFront, query: str, ids: list[int]) -> None:
    """Quotes, blanks and commas pass the front unchanged, in both dialects."""
    headers = {"apikey": asked.anon_key, "Accept-Profile": "hr"}
    quoted = query.replace(" ", "%20").replace('"', "%22").replace("\\", "%5C")
    answer = ask(asked.port, f"/rest/v1/open?select=id&order=id&{quoted}", headers=headers)
    assert [row["id"] for row in answer.json()] == ids
    assert answer.header("content-profile") == ["hr"]
    assert answer.header("content-range") == [f"0-{len(ids) - 1}/*" if ids else "*/*"]


def test_a_function_that_returns_null_says_null(asked: SupabaseFront) -> None:
    """An unknown user is 200 with the body `null`, in both dialects."""
    headers = {"apikey": asked.anon_key, "Content-Profile": "hr"}
    answer = ask(asked.port, "/rest/v1/rpc/nothing", method="POST", headers=headers, body={})
    assert (answer.status, answer.body) == (200, b"null")


def test_a_token_is_still_good_half_a_minute_after_its_time(asked: SupabaseFront) -> None:
    """Clocks may differ by 30 seconds before a token counts as expired."""
    token = signed(asked.keys.jwt_secret, role="anon", exp=int(time.time()) - 5)
    headers = {"apikey": asked.anon_key, "Accept-Profile": "hr", "Authorization": f"Bearer {token}"}
    assert ask(asked.port, "/rest/v1/open", headers=headers).status == 200
