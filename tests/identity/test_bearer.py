"""Whom a token names, and what becomes of one that names nobody, or not here, or not now."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import OctKey
from starlette.types import Scope

from ctxmiddleware import BadCredential, BearerJWT, ConfigurationError, Identity, Secret
from ctxmiddleware.identity.credential import OnBad
from ctxmiddleware.identity.jwt import keys
from ctxmiddleware.identity.jwt.bearer import MAX_TOKEN, REMEMBERED_SECONDS
from ctxmiddleware.testing import FakeClock

from .issuer import ADA, EC, ISSUER, NOW, OCT, RSA, SECRET, asked, asking, signed, wall_clock

pytestmark = pytest.mark.anyio


def _bearer(**changed: Any) -> BearerJWT:
    given: dict[str, Any] = {"secret": SECRET, "issuer": ISSUER, "wall_clock": wall_clock, **changed}
    return BearerJWT(**given)


def _token(**changed: Any) -> str:
    return signed(OCT, "HS256", **changed)


async def later(scope: Scope) -> str | None:
    """Find no token, later."""
    return None


async def test_a_good_token_names_its_user() -> None:
    """With the subject, the tenant, and until when it is good; without a wait."""
    identity = _bearer(tenant="acme", leeway=5)(asking(_token()))
    assert identity == Identity(ADA, subject="5f2c", tenant="acme", expires_at=NOW + 3605)


@pytest.mark.parametrize("on_bad", ["anonymous", "refuse"])
@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 11},
        {"without": ["exp"]},
        {"exp": "2100-01-01"},
        {"exp": None},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"nbf": NOW + 11},
        {"nbf": "now"},
        {"nbf": None},
        {"nbf": True},
        {"iss": "https://somebody.else"},
        {"iss": f"{ISSUER}/"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"without": ["iss"]},
        {"aud": "anon"},
        {"aud": ["a", "b"]},
        {"aud": []},
        {"aud": {"authenticated": 1}},
        {"aud": [["authenticated"]]},
        {"without": ["aud"]},
        {"role": "anon"},
        {"role": "service_role"},
        {"role": ["authenticated", "service_role"]},
        {"without": ["email"]},
        {"email": ""},
        {"email": " \t"},
        {"email": "ada"},
        {"email": ["ada@example.org"]},
        {"email": "ada@example.org\n"},
        {"email": "ada@example.org\x00"},
        {"email": "a" * 320 + "@example.org"},
        {"email_verified": False},
        {"email_verified": "false"},
        {"email_verified": None},
        {"header": {"typ": "dpop+jwt"}},
        {"header": {"typ": "logout+jwt"}},
        {"header": {"cty": "JWT"}},
        {"header": {"zip": "DEF"}},
        {"header": {"enc": "A128GCM"}},
    ],
    ids=str,
)
async def test_what_a_token_may_not_say(
    changed: dict[str, Any], on_bad: OnBad, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender is anonymous, or refused where that was asked for; nothing of it is told, and it is not remembered."""
    caplog.set_level(logging.DEBUG)
    bearer, scope = _bearer(on_bad=on_bad), asking(_token(**changed))
    for _ in range(2):
        if on_bad == "refuse":
            with pytest.raises(BadCredential) as caught:
                bearer(scope)
            assert "ada" not in str(caught.value)
        else:
            assert bearer(scope) is None
    assert len(bearer._remembered) == 0
    assert len(caplog.records) == 2
    assert "ada" not in caplog.text


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 9},
        {"exp": NOW + 1.5},
        {"nbf": NOW + 9},
        {"aud": ["somebody", "authenticated"]},
        {"email_verified": True},
        {"email_verified": "true"},
        {"without": ["role", "sub"]},
        {"sub": 7},
        {"email": "Ünïcode@example.org"},
        {"user_metadata": {"email": "boss@example.org"}},
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": "JWT", "cty": "x", "private": "member"}},
    ],
    ids=str,
)
async def test_what_a_token_may_say(changed: dict[str, Any]) -> None:
    """Clocks may differ, and there may be more in it than is asked for."""
    identity = await asked(_bearer(), _token(**changed))
    assert identity is not None
    assert identity.email == changed.get("email", ADA)


async def test_who_may_not_be_checked_is_not() -> None:
    """Without an issuer and an audience anybody's tokens are good whose key is known."""
    bearer = _bearer(issuer=None, audience=None)
    assert await asked(bearer, _token(iss="somebody", aud="anybody"))
    several = _bearer(audience=("a", "b"))
    assert await asked(several, _token(aud="b"))
    assert await asked(several, _token(aud="c")) is None


async def test_another_claim_names_the_user_by_choice() -> None:
    """The subject, for one, which is no address; `email_verified` says nothing of it."""
    identity = await asked(_bearer(claim="sub"), _token(email_verified=False))
    assert identity is not None
    assert (identity.key, identity.name, identity.email) == ("subject", "5f2c", None)
    assert await asked(_bearer(claim="sub"), _token(without=["sub"])) is None


@pytest.mark.parametrize(
    ("headers", "is_good"),
    [
        ([], None),
        ([b""], None),
        ([b"Bearer"], None),
        ([b"Bearer "], None),
        ([b"Basic %s"], None),
        ([b"bearer %s"], True),
        ([b"BEARER  %s "], True),
        ([b"Bearer %s", b"Bearer %s"], False),
        ([b"Bearer %s", b"Basic x"], False),
        ([b"Bearer %s %s"], False),
        ([b"Bearer \xff\xfe"], False),
        ([b"Bearer %sx"], False),
        ([b"Bearer .%s"], False),
        ([b"Bearer a.b.c"], False),
    ],
    ids=str,
)
async def test_where_the_token_is(headers: list[bytes], *, is_good: bool | None) -> None:
    """In one Authorization header, after the word; without it nobody asks, and with two of them nobody knows who."""
    token = _token().encode()
    values = [header.replace(b"%s", token) for header in headers]
    scope = {"type": "http", "headers": [(b"Authorization", value) for value in values]}
    bearer = _bearer(on_bad="refuse")
    if is_good is False:
        with pytest.raises(BadCredential):
            bearer(scope)
    else:
        assert (bearer(scope) is not None) is (is_good is True)


async def test_a_token_may_be_found_elsewhere() -> None:
    """In a cookie, for one, or the query of a websocket."""
    find: Callable[[Any], str | None] = lambda scope: scope.get("cookie")  # noqa: E731 - as users write it
    bearer = _bearer(token=find)
    assert bearer(asking(_token())) is None
    assert bearer({"type": "websocket", "cookie": _token()}) is not None


async def test_one_that_is_too_long_is_not_looked_at() -> None:
    """Whoever sends megabytes does not get them hashed and parsed."""
    bearer = _bearer(on_bad="refuse")
    long = _token(extra="x" * MAX_TOKEN)
    with pytest.raises(BadCredential, match="too long"):
        bearer(asking(long))
    assert await asked(bearer, _token(extra="x" * 9000))


async def test_a_verified_token_is_remembered_until_it_expires() -> None:
    """The same object comes back, so that no signature is checked; never for longer than ten minutes, nor than it."""
    wall, clock = FakeClock(NOW), FakeClock()
    bearer = _bearer(wall_clock=wall, clock=clock, leeway=0)
    token = _token(exp=NOW + 900)
    first = bearer(asking(token))
    assert bearer(asking(token)) is first
    clock.advance(REMEMBERED_SECONDS)
    second = bearer(asking(token))
    assert second == first
    assert second is not first
    wall.advance(899)
    assert bearer(asking(token)) is second
    wall.advance(1)
    assert bearer(asking(token)) is None


async def test_no_more_are_remembered_than_may_be() -> None:
    """The oldest leaves, and is verified again."""
    bearer = _bearer(remembered=3)
    tokens = [_token(sub=f"{number}") for number in range(5)]
    first = [bearer(asking(token)) for token in tokens]
    assert len(bearer._remembered) == 3
    assert [bearer(asking(token)) is known for token, known in zip(tokens[2:], first[2:], strict=True)] == [True] * 3
    assert bearer(asking(tokens[0])) == first[0]
    assert len(bearer._remembered) == 3


async def test_nothing_that_is_held_shows_a_token_or_a_secret() -> None:
    """Neither its repr, nor the memory of tokens."""
    bearer, token = _bearer(secret=Secret(SECRET)), _token()
    await asked(bearer, token)
    shown = repr(bearer) + repr(bearer._remembered) + repr(vars(bearer._remembered))
    assert token not in shown
    assert SECRET not in shown
    assert ADA not in shown
    assert token.encode() not in b"".join(bearer._remembered._known)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"secret": None}, "needs jwks_url"),
        ({"secret": "s" * 31}, "shorter than 32 bytes"),
        ({"jwks_url": "ftp://issuer.example"}, "not an http or https URL"),
        ({"jwks_url": "file:///etc/passwd"}, "not an http or https URL"),
        ({"jwks_url": "https://user:HUNTER2@issuer.example"}, "without a user or password"),
        ({"jwks_url": "https:///keys"}, "not an http or https URL"),
        ({"jwks_url": "https://[::1"}, "not an http or https URL"),
        ({"jwks_url": "https://issuer.example:99999"}, "not an http or https URL"),
        ({"jwks_url": "https://iss uer.example"}, "not an http or https URL"),
        ({"secret": b"HUNTER2"}, "secret is of type bytes"),
        ({"secret": RSA.as_pem(private=False).decode()}, "secret is a key of another kind"),
        ({"secret": f"the key:\n{EC.as_pem(private=False).decode()}"}, "secret is a key of another kind"),
        ({"secret": f"ssh-ed25519 {'HUNTER2' * 8}"}, "secret is a key of another kind"),
        ({"secret": f"sb_secret_{'HUNTER2' * 8}"}, "secret is a key of another kind"),
        ({"secret": f"eyJ{'HUNTER2' * 8}.eyJ.x"}, "secret is a key of another kind, or a token"),
        ({"tenant": 7}, "tenant was int"),
        ({"leeway": "10"}, "leeway was '10'"),
        ({"leeway": True}, "leeway was True"),
        ({"remembered": 1.5}, "remembered was 1.5"),
        ({"token": "cookie"}, "token is no ordinary function"),
        ({"token": later}, "token is no ordinary function"),
        ({"claim": ""}, "claim is empty"),
        ({"leeway": -1}, "leeway was -1"),
        ({"leeway": float("nan")}, "leeway was nan"),
        ({"leeway": 301}, "leeway was 301"),
        ({"remembered": 0}, "remembered was 0"),
        ({"issuer": ""}, "issuer was ''"),
        ({"issuer": [ISSUER]}, r"issuer was \['https"),
        ({"audience": [7]}, r"audience was \[7\]"),
        ({"on_bad": "ignore"}, "on_bad was 'ignore'"),
    ],
    # Keys are made anew each time, and workers have to agree on the names of tests.
    ids=itertools.count(),
)
async def test_what_cannot_work_is_refused_where_it_is_made(given: dict[str, Any], told: str) -> None:
    """And says what is right."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        _bearer(**given)
    assert "HUNTER2" not in str(caught.value)


@pytest.mark.parametrize("secret", [f"{'0' * 40}eyJ", f"{'a' * 40}sb_secret_", "\u00e4" * 16, f"eyJ{'x' * 40}"])
async def test_a_secret_may_look_as_it_likes(secret: str) -> None:
    """What is random holds anything once in a while."""
    assert await asked(_bearer(secret=secret), signed(OctKey.import_key(secret), "HS256"))


async def test_what_the_library_takes_for_no_secret_is_a_fault_of_the_configuration() -> None:
    """Its own error would hold the secret in its frames."""
    with pytest.raises(ConfigurationError, match="none that tokens can be signed with") as caught:
        keys.shared_secret(Secret(""))
    assert caught.value.__context__ is None


async def test_all_faults_are_told_at_once() -> None:
    """Whoever mends one should not find the next one only then."""
    with pytest.raises(ConfigurationError) as caught:
        BearerJWT(claim="", leeway=-1)
    assert len(caught.value.faults) == 3


def test_a_key_for_each_algorithm_and_no_other() -> None:
    """HS256 is what a secret signs, whatever a token says."""
    assert keys.shared_secret(Secret(SECRET)).algorithms == ("HS256",)
