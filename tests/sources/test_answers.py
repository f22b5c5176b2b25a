"""What an answer is taken for: the whole table of codes and statuses, and everything that is no answer."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware import SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.sources.answers import LONGEST_RETRY_AFTER, FunctionMissing, Value, classify, retry_after
from ctxmiddleware.sources.exchange import NotSupported, OutOfTime, RequestRefused

NAME = "get_user_context_by_email"
NOW = 1_800_000_000.0
ABSENT = f"function hr.{NAME}(p_email => text) does not exist"
INNER = "function hr.badge_of(bigint) does not exist"
Verdict = Value | FunctionMissing | SourceError


def judge(status: int, headers: dict[str, str], body: bytes, **given: Any) -> Verdict:
    """Return what an answer is taken for, be it an error."""
    try:
        return classify(status, headers, body, **{"function": NAME, "now": NOW, **given})
    except SourceError as error:
        return error


def is_a(verdict: Verdict, kind: type[Verdict]) -> bool:
    """Return whether a verdict is of a kind and of no narrower one."""
    kinds = (SourceMisconfigured, SourceUnavailable, SourceError, FunctionMissing, Value)
    return kind is next(each for each in kinds if isinstance(verdict, each))


def judged(status: int, code: str | None = None, message: str = "", *, function: str | None = NAME) -> Verdict:
    """Return the verdict on an error of PostgREST's form."""
    body = {"details": None, "hint": None, "message": message}
    return judge(status, {}, json.dumps(body if code is None else {"code": code, **body}).encode(), function=function)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (404, "PGRST202", "", FunctionMissing),
        (404, "42883", ABSENT, FunctionMissing),
        (404, "42883", f"die Funktion hr.{NAME}(p_email => text) existiert nicht", FunctionMissing),
        (404, "42883", INNER, SourceMisconfigured),
        (404, "42883", f"function hr.my_{NAME}(text) does not exist", SourceMisconfigured),
        (404, "42883", "", SourceMisconfigured),
        (404, "42P01", 'relation "hr.employees" does not exist', SourceMisconfigured),
        (400, "42703", "column e.nickname does not exist", SourceMisconfigured),
        (404, "PGRST205", "", SourceMisconfigured),
        (400, "PGRST204", "", SourceMisconfigured),
        (400, "PGRST200", "", SourceMisconfigured),
        (300, "PGRST201", "", SourceMisconfigured),
        (300, "PGRST203", "", SourceMisconfigured),
        (406, "PGRST106", "Invalid schema: hr", SourceMisconfigured),
        (406, "PGRST106", "The schema must be one of the following: public", SourceMisconfigured),
        (401, "42501", "permission denied for function", SourceMisconfigured),
        (403, "42501", "permission denied for table employees", SourceMisconfigured),
        (500, "PGRST300", "Server lacks JWT secret", SourceMisconfigured),
        (401, "PGRST301", "No suitable key or wrong key type", SourceMisconfigured),
        (401, "PGRST301", "JWSError JWSInvalidSignature", SourceMisconfigured),
        (401, "PGRST301", "JWT expired", SourceMisconfigured),
        (401, "PGRST302", "", SourceMisconfigured),
        (401, "PGRST303", "JWT expired", SourceMisconfigured),
        (401, "22023", 'role "nobody" does not exist', SourceMisconfigured),
        (400, "22023", 'role "nobody" does not exist', SourceMisconfigured),
        (405, "25006", "cannot execute INSERT in a read-only transaction", SourceMisconfigured),
        (503, "PGRST000", "", SourceUnavailable),
        (503, "PGRST001", "", SourceUnavailable),
        (503, "PGRST002", "", SourceUnavailable),
        (504, "PGRST003", "", SourceUnavailable),
        (503, "08006", "", SourceUnavailable),
        (503, "53300", "too many clients", SourceUnavailable),
        (503, "57P01", "terminating connection due to administrator command", SourceUnavailable),
        (400, "57P01", "terminating connection due to administrator command", SourceUnavailable),
        (400, "", "", SourceUnavailable),
        (500, "", "", SourceUnavailable),
        (404, "", "", SourceMisconfigured),
        (405, "", "", SourceError),
        (500, "57014", "canceling statement due to statement timeout", SourceUnavailable),
        (500, "40001", "canceling statement due to conflict with recovery", SourceUnavailable),
        (500, "40P01", "deadlock detected", SourceUnavailable),
        (500, "55P03", "", SourceUnavailable),
        (500, "58030", "could not read file", SourceUnavailable),
        (500, "21000", "two or more employees share this address", SourceError),
        (400, "P0001", "raised", SourceError),
        (400, "22P02", "", SourceError),
        (500, "XX000", "", SourceError),
        (402, "PT402", "", SourceError),
        (503, "PT503", "", SourceUnavailable),
        (406, "PGRST107", "", SourceError),
        (415, "PGRST107", "", SourceError),
        (400, "PGRST100", "", SourceError),
        (406, "PGRST116", "", SourceError),
        (500, "PGRSTX00", "", SourceUnavailable),
    ],
)
def test_a_code_decides(status: int, code: str, message: str, kind: type[Verdict]) -> None:
    """The code in the body says what happened, in the forms of PostgREST 12 and 16."""
    assert is_a(judged(status, code, message), kind)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
def test_the_code_is_stronger_than_the_status(status: int) -> None:
    """A missing grant is one whatever the status a gateway gave it."""
    assert isinstance(judged(status, "42501"), SourceMisconfigured)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, SourceUnavailable) for status in (429, 408, 500, 502, 503, 504, 520, 540)),
        *((status, SourceMisconfigured) for status in (301, 307, 401, 402, 403, 404)),
        *((status, SourceError) for status in (400, 405, 414, 431)),
    ],
)
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
    assert is_a(judge(status, {}, body), kind)


def test_the_message_decides_nothing_else() -> None:
    """A text that looks like another fault changes no verdict."""
    assert isinstance(judged(503, None, "PGRST202 42501 permission denied"), SourceUnavailable)
    assert isinstance(judged(500, "57014", ABSENT), SourceUnavailable)


def test_a_code_counts_beside_a_message_of_another_type() -> None:
    """An error whose message is no text still has its code."""
    verdict = judge(403, {}, b'{"code":"42501","message":{"a":1}}')
    assert isinstance(verdict, SourceMisconfigured)


def test_a_table_read_knows_no_absent_function() -> None:
    """Where no function was called, a missing one is a broken installation."""
    assert isinstance(judged(404, "42883", ABSENT, function=None), SourceMisconfigured)


@pytest.mark.parametrize(
    ("content_range", "total"),
    [("0-999/1234", 1234), ("*/0", 0), ("0-2/*", None), ("", None), ("0-2/x", None), ("0-2/" + "9" * 5000, None)],
)
def test_an_answer_carries_the_servers_count(content_range: str, total: int | None) -> None:
    """The number of all rows is read from Content-Range, and nothing is where it holds none."""
    assert judge(206, {"content-range": content_range}, b"[]", function=None) == Value(b"[]", total)


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
    waiting = judge(503, {"retry-after": "7"}, b"")
    assert isinstance(waiting, SourceUnavailable)
    assert (str(waiting), waiting.retry_after, waiting.outage) == ("the API answered with status 503", 7.0, True)
    exhausted = judged(504, "PGRST003")
    assert isinstance(exhausted, SourceUnavailable)
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
    assert isinstance(verdict, SourceUnavailable)
    assert verdict.outage is outage
    assert isinstance(verdict, OutOfTime) is (code == "57014")


@pytest.mark.parametrize(("status", "outage"), [(429, True), (500, False), (502, True), (503, True), (504, True)])
def test_a_gateway_s_status_tells_an_outage(status: int, *, outage: bool) -> None:
    """A gateway that cannot reach the API cannot for anybody."""
    verdict = judge(status, {}, b"<html>")
    assert isinstance(verdict, SourceUnavailable)
    assert verdict.outage is outage


@given(st.integers(300, 599), st.binary(max_size=200), st.text(max_size=40))
def test_any_bytes_are_some_verdict(status: int, body: bytes, waiting: str) -> None:
    """No body and no header makes the judgement raise."""
    assert isinstance(judge(status, {"retry-after": waiting}, body), Verdict)


@given(
    st.integers(200, 599),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["code", "message", "x"]), inner),
    ),
)
def test_any_json_is_some_verdict(status: int, body: object) -> None:
    """No JSON makes the judgement raise, and no reason repeats a text of the body."""
    verdict = judge(status, {}, json.dumps(body).encode())
    assert isinstance(verdict, Verdict)


@pytest.mark.parametrize("status", [502, 503, 504, *range(520, 528), 530])
def test_a_gateway_that_cannot_reach_the_api_is_an_outage(status: int) -> None:
    """Nobody can be answered, so a batch is not split; 520 to 530 are the gateway's own numbers for it."""
    verdict = judge(status, {}, b"<html>")
    assert isinstance(verdict, SourceUnavailable)
    assert verdict.outage


def test_a_firewalls_refusal_is_told_from_the_apis() -> None:
    """A gateway may refuse what one request held; the API's own word about a grant, or a key, holds for everybody."""
    refused = judge(403, {}, b"<html>")
    assert isinstance(refused, RequestRefused)
    assert str(refused) == "a gateway before the API refused the request (status 403)"
    for status, body in ((403, b'{"code":"42501"}'), (401, b"<html>")):
        verdict = judge(status, {}, body)
        assert isinstance(verdict, SourceMisconfigured)
        assert not isinstance(verdict, RequestRefused)


def test_what_the_database_cannot_do_is_told_from_what_it_refused() -> None:
    """Another question may be answered without it."""
    assert isinstance(judged(400, "0A000"), NotSupported)
    assert not isinstance(judged(400, "22P02"), NotSupported)


def test_no_frame_of_an_error_holds_the_body() -> None:
    """A message of the database may hold what was asked for, and error trackers record the locals of frames."""
    verdict = judged(403, "42501", "no grant for ada.lovelace@example.com")
    assert isinstance(verdict, SourceMisconfigured)
    frames = traceback.walk_tb(verdict.__traceback__)
    assert [frame.f_code.co_name for frame, _ in frames] == ["judge", "call"]


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
    assert isinstance(verdict, SourceMisconfigured)
    assert str(verdict).endswith(f": {name}")


@pytest.mark.parametrize("code", ["42501", "PGRST301", "PGRST106"])
def test_what_was_asked_for_is_not_shown(code: str) -> None:
    """A message may hold an address or a key; only names of our tables and columns are taken from it."""
    verdict = judged(400, code, "no grant for ada.lovelace@example.com with key eyJhbGciOi.eyJyb2xlIjoi.sig")
    assert isinstance(verdict, SourceMisconfigured)
    assert "ada" not in str(verdict)
    assert "eyJ" not in str(verdict)


def test_the_error_names_a_missing_gateway_before_postgrest() -> None:
    """Nothing is wrong with the path of SUPABASE_URL: what is missing is the prefix before the API."""
    for verdict in (
        judge(404, {"server": "postgrest/12.0.2"}, b"{}"),
        judged(404, "PGRST125", "Invalid path specified in request URL"),
    ):
        assert isinstance(verdict, SourceMisconfigured)
        assert "leads to PostgREST itself" in str(verdict)
        assert "/rest/v1/" in str(verdict)
    verdict = judge(404, {"server": "nginx"}, b"{}")
    assert isinstance(verdict, SourceMisconfigured)
    assert "nothing answers at this address" in str(verdict)


@pytest.mark.parametrize("schema", ["hr", "people"])
def test_the_migration_is_named_with_the_schema_it_is_written_for(schema: str) -> None:
    """In another schema it would create what is never called."""
    body = b'{"code": "42501", "message": "permission denied for table employees"}'
    verdict = judge(403, {}, body, function=None, schema=schema)
    assert isinstance(verdict, SourceMisconfigured)
    assert ("it is written for the schema hr: put people there" in str(verdict)) is (schema == "people")
