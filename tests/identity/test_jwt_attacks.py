"""The published attacks on libraries that verify tokens: none of them lets anybody in."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Final

import pytest
from joserfc import jwe, jwt
from joserfc.jwk import OctKey, RSAKey

from ctxmiddleware import BadCredential, BearerJWT
from ctxmiddleware.identity.first_of import resolved

from .issuer import (
    ADA,
    ALGORITHMS,
    CLAIMS,
    EC,
    ED,
    ISSUER,
    MALLORY,
    OCT,
    RSA,
    SECRET,
    Publisher,
    asked,
    asking,
    b64,
    key_set,
    publishing,
    raw,
    signed,
    wall_clock,
)

pytestmark = pytest.mark.anyio

MALLORY_RSA: Final = RSAKey.generate_key(2048, {"kid": "rsa"})
PEM: Final = RSA.as_pem(private=False)


@pytest.fixture
async def published() -> AsyncIterator[Publisher]:
    """Keys of each kind."""
    async with publishing(key_set(EC, RSA, ED)) as server:
        yield server


@pytest.fixture
def bearer(published: Publisher) -> BearerJWT:
    """It verifies by the published keys and by the secret, and refuses what is no good."""
    return BearerJWT(published.url, secret=SECRET, issuer=ISSUER, wall_clock=wall_clock, on_bad="refuse")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_what_is_signed_as_it_should_be_is_let_in(bearer: BearerJWT, algorithm: str) -> None:
    """Or the attacks below would prove nothing."""
    identity = await asked(bearer, signed(ALGORITHMS[algorithm], algorithm))
    assert identity is not None
    assert identity.email == ADA


def _hmac(key: bytes, header: Mapping[str, Any]) -> str:
    """Return a token that is signed with bytes that everybody has."""
    signing = raw(header, CLAIMS).rpartition(".")[0]
    return f"{signing}.{b64(hmac.new(key, signing.encode(), hashlib.sha256).digest())}"


def _with(token: str, *, header: Any = None, payload: Any = None, signature: str | None = None) -> str:
    """Return a token of which parts are replaced."""
    head, body, sign = token.split(".")
    new_head, new_body, _ = raw(header or {}, payload or {}).split(".")
    parts = (new_head if header else head, new_body if payload else body, sign if signature is None else signature)
    return ".".join(parts)


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def _twice() -> str:
    return json.dumps(dict(CLAIMS))[:-1] + ', "email": "boss@example.org"}'


ATTACKS: Final[Mapping[str, Callable[[], str | bytes]]] = {
    # CVE-2015-9235 and its kin: an unsigned token that says so itself
    **{f"alg {alg}": partial(raw, {"alg": alg, "kid": "ec"}, CLAIMS) for alg in ("none", "None", "NONE", "nOnE")},
    "alg none with a signature": partial(raw, {"alg": "none"}, CLAIMS, b"x" * 64),
    "alg empty": lambda: raw({"alg": ""}, CLAIMS),
    "alg absent": lambda: raw({"kid": "ec"}, CLAIMS),
    "alg a list": lambda: raw({"alg": ["ES256"], "kid": "ec"}, CLAIMS),
    "alg null": lambda: raw({"alg": None}, CLAIMS),
    # CVE-2016-5431, CVE-2016-10555: the public key taken for a shared secret
    "HS256 by the public key's PEM": lambda: _hmac(PEM, {"alg": "HS256", "kid": "rsa"}),
    "HS256 by the public key's JWK": lambda: _hmac(json.dumps(RSA.as_dict(private=False)).encode(), {"alg": "HS256"}),
    "HS256 by an empty key": lambda: _hmac(b"", {"alg": "HS256"}),
    "HS256 by the name of the key": lambda: _hmac(b"ec", {"alg": "HS256", "kid": "ec"}),
    "another algorithm of the same key": lambda: signed(RSA, "RS512"),
    "PS256 where RS256 is meant": lambda: signed(RSA, "PS256"),
    "HS512 by the secret": lambda: signed(OCT, "HS512"),
    "RS256 by the name of an elliptic key": lambda: signed(RSA, "RS256", header={"kid": "ec"}),
    # CVE-2018-0114: a key that the token brings along
    "jwk embedded": lambda: signed(MALLORY, header={"jwk": MALLORY.as_dict(private=False)}),
    "jwk embedded, without kid": lambda: signed(MALLORY, header={"kid": None, "jwk": MALLORY.as_dict(private=False)}),
    "x5c embedded": lambda: signed(MALLORY_RSA, "RS256", header={"x5c": [b64(b"certificate")]}),
    "somebody else's key of the same name": lambda: signed(MALLORY),
    # CVE-2018-1000531 and others: what a key's name is used for
    **{
        f"kid {kid!r}": partial(_hmac, b"", {"alg": "HS256", "kid": kid})
        for kid in ("../../dev/null", "/dev/null", "x' UNION SELECT '' --", "key|/usr/bin/id", "\x00", "ec\x00")
    },
    "kid a number": lambda: raw({"alg": "ES256", "kid": 7}, CLAIMS),
    "kid a list": lambda: raw({"alg": "ES256", "kid": ["ec"]}, CLAIMS),
    "kid an object": lambda: raw({"alg": "ES256", "kid": {"$ne": 1}}, CLAIMS),
    # CVE-2022-21449: a signature of noughts; CVE-2020-28042, CVE-2022-39227 and others: none, or a part of it
    "ES256 of noughts": lambda: raw({"alg": "ES256", "kid": "ec"}, CLAIMS, bytes(64)),
    "ES256 of noughts as DER": lambda: raw({"alg": "ES256", "kid": "ec"}, CLAIMS, bytes.fromhex("3006020100020100")),
    "signature empty": lambda: _with(signed(), signature=""),
    "signature cut short": lambda: signed()[:-8],
    "signature of another token": lambda: _with(signed(), signature=signed(sub="x").rpartition(".")[2]),
    "no signature at all": lambda: signed().rpartition(".")[0],
    "no signature and no dot": lambda: signed().partition(".")[0],
    "four parts": lambda: f"{signed()}.x",
    "five parts": lambda: "....",
    "claims exchanged": lambda: _with(signed(), payload={**CLAIMS, "email": "boss@example.org"}),
    "claims as JSON beside the token": lambda: json.dumps({"payload": signed().split(".")[1], "signatures": []}),
    "header exchanged": lambda: _with(signed(), header={"alg": "RS256", "kid": "rsa"}),
    # for somebody else, or something else
    "wrong audience": lambda: signed(aud="another app"),
    "wrong issuer": lambda: signed(iss="https://mallory.example"),
    "expired": lambda: signed(exp=CLAIMS["iat"] - 60),
    "the anon key": lambda: signed(OCT, "HS256", role="anon", without=["email", "sub"]),
    "the service key": lambda: signed(OCT, "HS256", role="service_role"),
    "nested in a signed one": lambda: raw({"alg": "ES256", "kid": "ec", "cty": "JWT"}, signed().encode()),
    "nested and signed": lambda: jwt.encode({"alg": "ES256", "kid": "ec", "cty": "JWT"}, {"jwt": signed()}, EC),
    "encrypted": lambda: jwe.encrypt_compact(
        {"alg": "dir", "enc": "A128CBC-HS256"}, signed().encode(), OctKey.import_key(SECRET[:32])
    ),
    # what is not understood must be refused (RFC 7515, section 4.1.11; RFC 7797)
    "crit": lambda: raw({"alg": "ES256", "kid": "ec", "crit": ["exp"]}, CLAIMS, bytes(64)),
    "b64 false": lambda: raw({"alg": "ES256", "kid": "ec", "b64": False, "crit": ["b64"]}, CLAIMS, bytes(64)),
    "a compressed one": lambda: raw({"alg": "ES256", "kid": "ec", "zip": "DEF"}, b"\x00" * 100, bytes(64)),
    # what takes long, or is too much
    "oversized": lambda: signed(padding="x" * 20_000),
    "a header that is too long": lambda: raw({"alg": "ES256", "kid": "x" * 5000}, CLAIMS, bytes(64)),
    "deep JSON in the header": lambda: raw('{"alg": "ES256", "x": ' + _deep(1500) + "}", CLAIMS, bytes(64)),
    "unclosed JSON": lambda: raw('{"alg": "ES256", "x": ' + "[" * 1500, CLAIMS, bytes(64)),
    "many digits": lambda: raw('{"alg": "ES256", "x": ' + "9" * 3000 + "}", CLAIMS, bytes(64)),
    "a huge exponent": lambda: raw('{"alg": "ES256", "kid": 1e999}', CLAIMS, bytes(64)),
    # two readers that read two things
    "a header that says it twice": lambda: raw('{"alg": "none", "alg": "ES256", "kid": "ec"}', CLAIMS, bytes(64)),
    "a header with NaN": lambda: raw('{"alg": "ES256", "kid": "ec", "x": NaN}', CLAIMS, bytes(64)),
    "a header in UTF-16": lambda: raw(json.dumps({"alg": "ES256"}).encode("utf-16"), CLAIMS, bytes(64)),
    "a header that is a list": lambda: raw([{"alg": "ES256"}], CLAIMS, bytes(64)),
    "a header that is a text": lambda: raw('"ES256"', CLAIMS, bytes(64)),
    "padded base64": lambda: signed().replace(".", "==.", 1),
    "blanks in base64": lambda: " ".join(signed()),
    "bytes that are no text": lambda: b"\xff.\xfe.\xfd",
    "dots": lambda: "..",
    "nothing but a word": lambda: "null",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_nobody_is_let_in(bearer: BearerJWT, published: Publisher, attack: str) -> None:
    """Whatever it is, it is a bad credential, and no error of another kind; nothing of it is remembered."""
    token = ATTACKS[attack]()
    for _ in range(2):
        with pytest.raises(BadCredential):
            await resolved(bearer(asking(token)))
    assert len(bearer._remembered) == 0
    # Keys come from where they are published, and from nowhere else.
    assert {request.split(b"\r\n")[0] for request in published.requests} <= {b"GET /keys HTTP/1.1"}


@pytest.mark.parametrize("member", ["jku", "x5u"])
async def test_nobody_is_asked_for_keys_but_their_publisher(bearer: BearerJWT, member: str) -> None:
    """A token that names another place for its keys is not a request to go there (CVE-2018-0114's cousin)."""
    async with publishing(key_set(MALLORY)) as mallory:
        with pytest.raises(BadCredential):
            await asked(bearer, signed(MALLORY, header={member: mallory.url}))
        with pytest.raises(BadCredential):
            await asked(bearer, signed(MALLORY, header={member: mallory.url, "kid": "unheard of"}))
        assert mallory.fetches == 0


@pytest.mark.parametrize(
    "payload", [_twice(), '{"email": ' + _deep(5000) + "}", "[]", '"x"', "{", "\x00", "NaN", "1e999"]
)
async def test_claims_that_cannot_be_read_strictly_are_none(payload: str) -> None:
    """Though their signature is right: whoever signs lets somebody choose a part of what is signed."""
    bearer = BearerJWT(secret=SECRET, issuer=ISSUER, wall_clock=wall_clock, on_bad="refuse")
    signing = raw({"alg": "HS256"}, payload).rpartition(".")[0]
    token = f"{signing}.{b64(hmac.new(SECRET.encode(), signing.encode(), hashlib.sha256).digest())}"
    with pytest.raises(BadCredential):
        await asked(bearer, token)


async def test_without_a_secret_nothing_is_signed_with_one(published: Publisher) -> None:
    """HS256 is for those who ask for it."""
    bearer = BearerJWT(published.url, issuer=ISSUER, wall_clock=wall_clock, on_bad="refuse")
    with pytest.raises(BadCredential):
        await asked(bearer, signed(OCT, "HS256"))
    assert published.fetches == 0
