"""Which addresses, schemas and keys are taken, and how requests are addressed."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware.errors import ConfigurationError
from ctxmiddleware.secret import Secret
from ctxmiddleware.sources.addresses import is_storable, quoted
from ctxmiddleware.sources.endpoint import Server
from ctxmiddleware.sources.pool import PoolOptions
from ctxmiddleware.sources.supabase import SupabaseSource

SECRET = "sb_secret_abcDEF-123_x"


def jwt(**claims: object) -> str:
    """Return an unsigned token, as far as a key is looked into."""

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


SERVICE = jwt(role="service_role", iss="supabase")


@pytest.mark.parametrize("key", [SECRET, SERVICE, Secret(SECRET)])
def test_both_kinds_of_server_key_are_taken(key: str | Secret) -> None:
    """A secret key and the legacy service_role key build a source, which shows neither."""
    source = SupabaseSource("https://abc.supabase.co", key)
    assert repr(source) == "<SupabaseSource https://abc.supabase.co/rest/v1, schema hr>"


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (jwt(role="anon"), "role anon"),
        (jwt(role="authenticated"), "role authenticated"),
        (jwt(role="postgres"), "another role than service_role"),
        (jwt(sub="x"), "no key that is known"),
        (jwt(role=5), "no key that is known"),
        ("sb_publishable_abc", "publishable"),
        ("sb_secret_", "no key that is known"),
        ("sb_other_abc", "no key that is known"),
        ("", "is empty"),
        ("password", "no key that is known"),
        ("a.b.c", "no key that is known"),
        ("a.\u00e9.c", "characters no key has"),
        (SECRET + "\n", "white space"),
        (f"{SECRET}\r\nx-evil: 1", "white space"),
        (SERVICE + ".x", "no key that is known"),
        ("." * 5000, "no key that is known"),
        ("a." + base64.urlsafe_b64encode(b"[" * 50_000).decode() + ".c", "no key that is known"),
    ],
)
def test_other_keys_are_refused_and_not_shown(key: str, complaint: str) -> None:
    """The message names the variable and what is allowed, never the key."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        SupabaseSource("https://abc.supabase.co", key)
    assert "SUPABASE_KEY" in str(caught.value)
    assert "sb_secret_..." in str(caught.value)
    assert len(key) < 12 or key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://abc.supabase.co", "https://abc.supabase.co/", "https://abc.supabase.co/rest/v1",
        "https://abc.supabase.co/rest/v1/",
    ],
)  # fmt: skip
def test_a_projects_address_is_taken_with_or_without_its_path(url: str) -> None:
    """A trailing slash and the interface's own prefix do no harm."""
    assert "https://abc.supabase.co/rest/v1," in repr(SupabaseSource(url, SECRET))


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "not an address"), ("abc.supabase.co", "not an address"), ("ftp://abc.supabase.co", "not an address"),
        ("https://", "not an address"), ("https://:443", "not an address"), ("https://a:b", "not an address"),
        ("https://a:99999", "not an address"), ("https://a b", "not an address"), ("https://[::1", "not an address"),
        ("https://a.co\r\nx: y", "not an address"), ("postgresql://a", "not an address"),
        ("https://me:pw@abc.supabase.co", "a user or a password"), ("https://abc.supabase.co?x=1", "a query"),
        ("https://abc.supabase.co#x", "a query"), ("https://abc.supabase.co/hr", "a path"),
    ],
)  # fmt: skip
def test_other_addresses_are_refused(url: str, complaint: str) -> None:
    """Each wrong address is told with the variable's name, without the password in it."""
    with pytest.raises(ConfigurationError, match=f"SUPABASE_URL.*{complaint}"):
        SupabaseSource(url, SECRET)
    with pytest.raises(ConfigurationError, match=f"SUPABASE_READ_URL.*{complaint}") as caught:
        SupabaseSource("https://abc.supabase.co", SECRET, read_url=url)
    assert "pw" not in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    """Address, key, schema, replica and lag are all named in one error."""
    with pytest.raises(ConfigurationError) as caught:
        SupabaseSource("x", "", schema="h r", read_url="y", replica_lag=-1.0)
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": SECRET.encode()}, "SUPABASE_KEY is of type bytes: it must be a secret key"),
        ({"key": Secret(None)}, "SUPABASE_KEY is of type NoneType"),  # type: ignore[arg-type]  # the fault tested
        ({"key": None}, "SUPABASE_KEY is of type NoneType"),
        ({"url": None}, "SUPABASE_URL is not an address"),
        ({"url": b"https://abc.supabase.co"}, "SUPABASE_URL is not an address"),
        ({"read_url": 1}, "SUPABASE_READ_URL is not an address"),
        ({"schema": b"hr"}, "SUPABASE_SCHEMA is of type bytes: it must be the name of a schema"),
        ({"replica_lag": "10"}, "CTX_REPLICA_LAG was '10', must be a number of seconds from 0 to 3600"),
        ({"replica_lag": None}, "CTX_REPLICA_LAG was None"),
        ({"replica_lag": True}, "CTX_REPLICA_LAG was True"),
        ({"replica_lag": float("nan")}, "CTX_REPLICA_LAG was nan"),
        ({"replica_lag": 3601}, "CTX_REPLICA_LAG was 3601, must be a number of seconds from 0 to 3600"),
    ],
)
def test_an_argument_of_another_kind_is_refused(arguments: dict[str, Any], message: str) -> None:
    """It is named with the kind it has, when the source is built and not at its first load."""
    with pytest.raises(ConfigurationError) as caught:
        SupabaseSource(**{"url": "https://abc.supabase.co", "key": SECRET, **arguments})
    assert message in str(caught.value)
    assert len(caught.value.faults) == 1


def test_arguments_of_another_kind_are_told_at_once_and_not_shown() -> None:
    """All are named in one error; a key in a wrong place is not in it."""
    wrong: dict[str, Any] = {
        "url": SECRET.encode(),
        "key": SECRET.encode(),
        "schema": SECRET,
        "read_url": [SECRET],
        "replica_lag": SECRET,
    }
    with pytest.raises(ConfigurationError) as caught:
        SupabaseSource(**wrong)
    assert len(caught.value.faults) == len(wrong)
    assert "sb_secret_abc" not in str(caught.value)


def test_an_error_of_the_wrong_type_has_no_key_in_its_frames() -> None:
    """Python's own error leaves the constructor as it is, and error trackers record the locals of its frames."""
    wrong: Any = object()
    with pytest.raises(TypeError) as caught:
        SupabaseSource("https://abc.supabase.co", SECRET, pool=wrong, client=wrong)
    frames = list(caught.traceback)[1:]
    assert frames
    assert [entry.name for entry in frames if SECRET in repr(entry.frame.f_locals)] == []


@pytest.mark.parametrize("schema", ["", "1hr", "hr\n", "hr,public", "h" * 64, 'hr"'])
def test_a_schema_is_a_name(schema: str) -> None:
    """What cannot be the name of a schema is refused before it becomes a header."""
    with pytest.raises(ConfigurationError, match="SUPABASE_SCHEMA"):
        SupabaseSource("https://abc.supabase.co", SECRET, schema=schema)


def test_pool_options_are_checked_together() -> None:
    """Limits that no pool could obey are all named at once."""
    with pytest.raises(ConfigurationError) as caught:
        PoolOptions(max_connections=0, pool_timeout=-1, recycle=float("nan"), keepalive=float("inf"), read_timeout=0)
    assert len(caught.value.faults) == 5


def test_a_secret_key_goes_in_apikey_only() -> None:
    """A new key is no token; the legacy key is one and goes in both headers."""
    new = Server("http://h/rest/v1", "hr", Secret(SECRET)).post("rpc/f", {})
    assert "authorization" not in new.headers
    old = Server("http://h/rest/v1", "hr", Secret(SERVICE)).post("rpc/f", {})
    assert old.headers["authorization"] == Secret(f"Bearer {SERVICE}")
    assert old.headers["content-profile"] == "hr"
    assert SERVICE not in repr(old)
    assert SERVICE not in repr(dict(old.headers))


@given(st.text(min_size=1, max_size=60).filter(is_storable))
def test_any_address_survives_the_url(email: str) -> None:
    """What is put in a query is what a server reads from it, and it is all ASCII."""
    call = Server("http://h/rest/v1", "hr", Secret(SECRET)).get("employees", {"email": f"eq.{email}"})
    assert call.url.isascii()
    assert "+" not in call.url
    assert parse_qsl(urlsplit(call.url).query, strict_parsing=True) == [("email", f"eq.{email}")]
    assert email not in repr(call) or len(email) < 12


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        ("a@b.c", True),
        ("\u0130@b.c", True),
        ("a\x00@b.c", False),
        ("\ud800@b.c", False),
        ("x" * 450, True),
        ("x" * 451, False),
        ("\u00e4" * 225, True),
        ("\u00e4" * 226, False),
    ],
)
def test_an_address_is_storable_where_the_database_can_hold_it(email: str, expected: bool) -> None:  # noqa: FBT001
    """450 bytes of UTF-8 at most, and no NUL."""
    assert is_storable(email) is expected


def test_quoting_is_postgrests() -> None:
    """Quotes and backslashes are escaped inside a list."""
    assert quoted('a"b\\c,d') == '"a\\"b\\\\c,d"'


def test_the_label_names_the_database_and_not_the_key() -> None:
    """Two projects, or two schemas of one, have two labels; a new key is no new database."""
    first = SupabaseSource("https://abc.supabase.co", SECRET)
    assert first.label == SupabaseSource("https://abc.supabase.co/", SERVICE).label
    assert first.label != SupabaseSource("https://def.supabase.co", SECRET).label
    assert first.label != SupabaseSource("https://abc.supabase.co", SECRET, schema="people").label
    assert SECRET not in first.label
