"""What an answer is taken for: the whole table of codes and statuses, and everything that is no answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware.sources.answers import (
    LONGEST_RETRY_AFTER,
    Broken,
    FunctionAbsent,
    Misconfigured,
    Passing,
    Value,
    Verdict,
    judge,
    retry_after,
)

NAME = "get_user_context_by_email"
NOW = 1_800_000_000.0
ABSENT = f"function hr.{NAME}(p_email => text) does not exist"
INNER = "function hr.badge_of(bigint) does not exist"


def judged(status: int, code: str | None = None, message: str = "", *, function: str | None = NAME) -> Verdict:
    """Return the verdict on an error of PostgREST's form."""
    body = {"details": None, "hint": None, "message": message}
    return judge(
        status, {}, json.dumps(body if code is None else {"code": code, **body}).encode(), function=function, now=NOW
    )


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (404, "PGRST202", "", FunctionAbsent),
        (404, "42883", ABSENT, FunctionAbsent),
        (404, "42883", f"die Funktion hr.{NAME}(p_email => text) existiert nicht", FunctionAbsent),
        (404, "42883", INNER, Misconfigured),
        (404, "42883", f"function hr.my_{NAME}(text) does not exist", Misconfigured),
        (404, "42883", "", Misconfigured),
        (404, "42P01", 'relation "hr.employees" does not exist', Misconfigured),
        (400, "42703", "column e.nickname does not exist", Misconfigured),
        (404, "PGRST205", "", Misconfigured),
        (400, "PGRST204", "", Misconfigured),
        (400, "PGRST200", "", Misconfigured),
        (300, "PGRST201", "", Misconfigured),
        (300, "PGRST203", "", Misconfigured),
        (406, "PGRST106", "Invalid schema: hr", Misconfigured),
        (406, "PGRST106", "The schema must be one of the following: public", Misconfigured),
        (401, "42501", "permission denied for function", Misconfigured),
        (403, "42501", "permission denied for table employees", Misconfigured),
        (500, "PGRST300", "Server lacks JWT secret", Misconfigured),
        (401, "PGRST301", "No suitable key or wrong key type", Misconfigured),
        (401, "PGRST301", "JWSError JWSInvalidSignature", Misconfigured),
        (401, "PGRST301", "JWT expired", Misconfigured),
        (401, "PGRST302", "", Misconfigured),
        (401, "PGRST303", "JWT expired", Misconfigured),
        (401, "22023", 'role "nobody" does not exist', Misconfigured),
        (400, "22023", 'role "nobody" does not exist', Misconfigured),
        (405, "25006", "cannot execute INSERT in a read-only transaction", Misconfigured),
        (503, "PGRST000", "", Passing),
        (503, "PGRST001", "", Passing),
        (503, "PGRST002", "", Passing),
        (504, "PGRST003", "", Passing),
        (503, "08006", "", Passing),
        (503, "53300", "too many clients", Passing),
        (503, "57P01", "terminating connection due to administrator command", Passing),
        (400, "57P01", "terminating connection due to administrator command", Passing),
        (400, "", "", Passing),
        (500, "", "", Passing),
        (404, "", "", Misconfigured),
        (405, "", "", Broken),
        (500, "57014", "canceling statement due to statement timeout", Passing),
        (500, "40001", "canceling statement due to conflict with recovery", Passing),
        (500, "40P01", "deadlock detected", Passing),
        (500, "55P03", "", Passing),
        (500, "58030", "could not read file", Passing),
        (500, "21000", "two or more employees share this address", Broken),
        (400, "P0001", "raised", Broken),
        (400, "22P02", "", Broken),
        (500, "XX000", "", Broken),
        (402, "PT402", "", Broken),
        (503, "PT503", "", Passing),
        (406, "PGRST107", "", Broken),
        (415, "PGRST107", "", Broken),
        (400, "PGRST100", "", Broken),
        (406, "PGRST116", "", Broken),
        (500, "PGRSTX00", "", Passing),
    ],
)
def test_a_code_decides(status: int, code: str, message: str, kind: type[Verdict]) -> None:
    """The code in the body says what happened, in the forms of PostgREST 12 and 16."""
    assert isinstance(judged(status, code, message), kind)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
def test_the_code_is_stronger_than_the_status(status: int) -> None:
    """A missing grant is one whatever the status a gateway gave it."""
    assert isinstance(judged(status, "42501"), Misconfigured)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, Passing), (408, Passing), (500, Passing), (502, Passing), (503, Passing), (504, Passing), (520, Passing),
        (540, Passing), (301, Misconfigured), (307, Misconfigured), (401, Misconfigured), (402, Misconfigured),
        (403, Misconfigured), (404, Misconfigured), (400, Broken), (405, Broken), (414, Broken), (431, Broken),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>PGRST202 42501</body></html>",
        b'{"message":"Invalid API key"}',
        b'{"code":401}',
        b"[]",
        b"null",
        b"\xff\xfe",
        b'"PGRST202"',
        b'{"code":null,"message":null}',
        b"[" * 100_000,
    ],
)
def test_without_a_code_the_status_decides(status: int, kind: type[Verdict], body: bytes) -> None:
    """Pages of gateways and bodies that are no errors of PostgREST are judged by their status alone."""
    assert isinstance(judge(status, {}, body, function=NAME, now=NOW), kind)


def test_the_message_decides_nothing_else() -> None:
    """A text that looks like another fault changes no verdict."""
    assert isinstance(judged(503, None, "PGRST202 42501 permission denied"), Passing)
    assert isinstance(judged(500, "57014", ABSENT), Passing)


def test_a_code_counts_beside_a_message_of_another_type() -> None:
    """An error whose message is no text still has its code."""
    verdict = judge(403, {}, b'{"code":"42501","message":{"a":1}}', function=NAME, now=NOW)
    assert isinstance(verdict, Misconfigured)


def test_a_table_read_knows_no_absent_function() -> None:
    """Where no function was called, a missing one is a broken installation."""
    assert isinstance(judged(404, "42883", ABSENT, function=None), Misconfigured)


@pytest.mark.parametrize(
    ("content_range", "total"),
    [("0-999/1234", 1234), ("*/0", 0), ("0-2/*", None), ("", None), ("0-2/x", None), ("0-2/" + "9" * 5000, None)],
)
def test_an_answer_carries_the_servers_count(content_range: str, total: int | None) -> None:
    """The number of all rows is read from Content-Range, and nothing is where it holds none."""
    assert judge(206, {"content-range": content_range}, b"[]", function=None, now=NOW) == Value(b"[]", total)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("86400", LONGEST_RETRY_AFTER), ("9" * 15, LONGEST_RETRY_AFTER),
        ("9" * 5000, None), ("8\x1c", None),
        ("-5", None), ("1.5", None), ("", None), ("soon", None), ("٣", None), ("inf", None),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0.0),
        (format_datetime(datetime.fromtimestamp(NOW + 90_000, UTC), usegmt=True), LONGEST_RETRY_AFTER),
        ("Fri, 31 Feb 2027 99:00:00 GMT", None), (None, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_both_forms(value: str | None, seconds: float | None) -> None:
    """Seconds and HTTP dates are understood and capped, garbage is ignored."""
    assert retry_after(value, NOW) == seconds


def test_retry_after_is_told_with_a_passing_fault() -> None:
    """A passing fault says when another try is worth it; an exhausted pool says a second by itself."""
    assert judge(503, {"retry-after": "7"}, b"", function=NAME, now=NOW) == Passing(
        "the API answered with status 503", 7.0, outage=True
    )
    exhausted = judged(504, "PGRST003")
    assert isinstance(exhausted, Passing)
    assert exhausted.retry_after == 1.0


@pytest.mark.parametrize(
    ("status", "code", "outage"),
    [
        (503, "PGRST000", True),
        (503, "PGRST002", True),
        (504, "PGRST003", True),
        (503, "57P01", True),
        (503, "08006", True),
        (503, "53300", True),
        (500, "57014", False),
        (500, "40001", False),
        (500, "40P01", False),
        (500, "55P03", False),
    ],
)
def test_an_outage_is_told_from_a_query_that_failed(status: int, code: str, *, outage: bool) -> None:
    """What failed one query may not fail a smaller one; what fails all of them is not worth asking in parts."""
    verdict = judged(status, code)
    assert isinstance(verdict, Passing)
    assert verdict.outage is outage
    assert verdict.late is (code == "57014")


@pytest.mark.parametrize(("status", "outage"), [(429, True), (500, False), (502, True), (503, True), (504, True)])
def test_a_gateway_s_status_tells_an_outage(status: int, *, outage: bool) -> None:
    """A gateway that cannot reach the API cannot for anybody."""
    verdict = judge(status, {}, b"<html>", function=NAME, now=NOW)
    assert isinstance(verdict, Passing)
    assert verdict.outage is outage


@given(st.integers(300, 599), st.binary(max_size=200), st.text(max_size=40))
def test_any_bytes_are_some_verdict(status: int, body: bytes, waiting: str) -> None:
    """No body and no header makes the judgement raise."""
    assert isinstance(judge(status, {"retry-after": waiting}, body, function=NAME, now=NOW), Verdict)


@given(
    st.integers(200, 599),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["code", "message", "x"]), inner),
    ),
)
def test_any_json_is_some_verdict(status: int, body: object) -> None:
    """No JSON makes the judgement raise, and no reason repeats a text of the body."""
    verdict = judge(status, {}, json.dumps(body).encode(), function=NAME, now=NOW)
    assert isinstance(verdict, Verdict)


@pytest.mark.parametrize("status", [502, 503, 504, *range(520, 528), 530])
def test_a_gateway_that_cannot_reach_the_api_is_an_outage(status: int) -> None:
    """Nobody can be answered, so a batch is not split; 520 to 530 are the gateway's own numbers for it."""
    verdict = judge(status, {}, b"<html>", function="f", now=0.0)
    assert isinstance(verdict, Passing)
    assert verdict.outage


def test_a_firewalls_refusal_is_told_from_the_apis() -> None:
    """A gateway may refuse what one request held; the API's own word about a grant, or a key, holds for everybody."""
    assert judge(403, {}, b"<html>", function="f", now=0.0) == Misconfigured(
        "a gateway before the API refused the request (status 403)", of_one=True
    )
    for status, body in ((403, b'{"code":"42501"}'), (401, b"<html>")):
        verdict = judge(status, {}, body, function="f", now=0.0)
        assert isinstance(verdict, Misconfigured)
        assert not verdict.of_one


@pytest.mark.parametrize(
    ("code", "message", "name"),
    [
        ("42703", "column employees.job_title does not exist", "employees.job_title"),
        ("42703", "Spalte e.nickname existiert nicht", "e.nickname"),
        ("42703", 'column "nickname" of relation "employees" does not exist', "nickname"),
        ("42P01", 'relation "hr.slots" does not exist', "hr.slots"),
        ("42883", INNER, "hr.badge_of"),
        ("42501", "permission denied for table employees", "employees"),
        ("PGRST205", "Could not find the table 'hr.slots' in the schema cache", "hr.slots"),
        ("PGRST204", "Could not find the 'x' column of 'employees' in the schema cache", "employees"),
    ],
)
def test_an_error_names_the_object_that_it_is_about(code: str, message: str, name: str) -> None:
    """In whatever language the rest of the message is."""
    verdict = judged(400, code, message)
    assert isinstance(verdict, Misconfigured)
    assert verdict.reason.endswith(f": {name}")


@pytest.mark.parametrize("code", ["42501", "PGRST301", "PGRST106"])
def test_what_was_asked_for_is_not_shown(code: str) -> None:
    """A message may hold an address or a key; only names of our tables and columns are taken from it."""
    verdict = judged(400, code, "no grant for ada.lovelace@example.com with key eyJhbGciOi.eyJyb2xlIjoi.sig")
    assert isinstance(verdict, Misconfigured)
    assert "ada" not in verdict.reason
    assert "eyJ" not in verdict.reason


def test_the_error_names_a_missing_gateway_before_postgrest() -> None:
    """Nothing is wrong with the path of SUPABASE_URL: what is missing is the prefix before the API."""
    for verdict in (
        judge(404, {"server": "postgrest/12.0.2"}, b"{}", function=NAME, now=NOW),
        judged(404, "PGRST125", "Invalid path specified in request URL"),
    ):
        assert isinstance(verdict, Misconfigured)
        assert "leads to PostgREST itself" in verdict.reason
        assert "/rest/v1/" in verdict.reason
    verdict = judge(404, {"server": "nginx"}, b"{}", function=NAME, now=NOW)
    assert isinstance(verdict, Misconfigured)
    assert "nothing answers at this address" in verdict.reason


@pytest.mark.parametrize("schema", ["hr", "people"])
def test_the_migration_is_named_with_the_schema_it_is_written_for(schema: str) -> None:
    """In another schema it would create what is never called."""
    body = b'{"code": "42501", "message": "permission denied for table employees"}'
    verdict = judge(403, {}, body, function=None, now=NOW, schema=schema)
    assert isinstance(verdict, Misconfigured)
    assert ("it is written for the schema hr: put people there" in verdict.reason) is (schema == "people")
