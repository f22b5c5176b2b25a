"""Several ways in `first_of`: each leaves the credentials of others alone, and an outage stays with its issuer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Scope

from ctxmiddleware import BadCredential, BearerJWT, Identify, Identity, SourceUnavailable, TrustedHeader, first_of
from ctxmiddleware.identity.credential import OnBad
from ctxmiddleware.identity.first_of import resolved

from .issuer import (
    ADA,
    CLAIMS,
    EC,
    ISSUER,
    MALLORY,
    NOW,
    OCT,
    RSA,
    SECRET,
    Publisher,
    asking,
    b64,
    key_set,
    publishing,
    raw,
    signed,
    wall_clock,
)  # fmt: skip

pytestmark = pytest.mark.anyio

OTHER = "https://other.example"
BOB = "bob@example.org"
API_KEYS = ("an-opaque-key", "sk_live_51H8", "sk.live.51H8", "eyes.of.ada", "a.b.c.d.e", "e30")


class Two:
    """Two issuers with key sets of their own."""

    def __init__(self, a: Publisher, b: Publisher) -> None:
        self.a, self.b = a, b

    def ways(self, on_bad: OnBad = "refuse", **of_a: Any) -> tuple[BearerJWT, BearerJWT]:
        """Return a way for each."""
        return (
            BearerJWT(self.a.url, **{"issuer": ISSUER, "on_bad": on_bad, "wall_clock": wall_clock, **of_a}),
            BearerJWT(self.b.url, issuer=OTHER, on_bad=on_bad, wall_clock=wall_clock),
        )


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    """Publish one key for each issuer."""
    async with publishing(key_set(EC)) as a, publishing(key_set(RSA)) as b:
        yield Two(a, b)


def of_a(**claims: Any) -> str:
    """Return a token of the first issuer."""
    return signed(**claims)


def of_b(**claims: Any) -> str:
    """Return a token of the second issuer."""
    return signed(RSA, "RS256", **{"iss": OTHER, "email": BOB, **claims})


def by_api_key(scope: Scope) -> Identity | None:
    """Identify by an opaque key in the Authorization header."""
    key = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
    return Identity("robot@example.org") if key in API_KEYS else None


async def by_api_key_later(scope: Scope) -> Identity | None:
    """Do the same as an async function."""
    return by_api_key(scope)


async def found(identify: Identify, token: str) -> str | None:
    """Return the address that a token leads to."""
    identity = await resolved(identify(asking(token)))
    return None if identity is None else identity.email


@pytest.mark.parametrize("on_bad", ["anonymous", "refuse"])
async def test_the_outage_of_one_issuer_is_its_own_users_alone(two: Two, on_bad: OnBad) -> None:
    """With the key set of the first answering 503, users of the second are identified, in either order."""
    two.a.status = 503
    ways = two.ways(on_bad)
    for identify in (first_of(*ways), first_of(*reversed(ways)), first_of(first_of(ways[0]), ways[1])):
        assert await found(identify, of_b()) == BOB
        with pytest.raises(SourceUnavailable):
            await found(identify, of_a())
    assert (two.a.fetches, two.b.fetches) == (1, 1)


@pytest.mark.parametrize("on_bad", ["anonymous", "refuse"])
async def test_no_key_is_fetched_for_another_issuers_token(two: Two, on_bad: OnBad) -> None:
    """The issuer is compared before keys are fetched, for tokens of any algorithm and with any header."""
    identify = first_of(*two.ways(on_bad))
    assert await found(identify, of_b()) == BOB
    assert await found(identify, of_b(sub="again")) == BOB
    assert (two.a.fetches, two.b.fetches) == (0, 1)
    assert await found(identify, of_a()) == ADA


async def test_a_bad_token_is_refused_by_its_own_issuers_way(two: Two) -> None:
    """A token that claims an issuer is that way's to refuse; a later way is not called for it."""
    called: list[Scope] = []

    def last(scope: Scope) -> Identity | None:
        called.append(scope)
        return Identity(BOB)

    identify = first_of(*two.ways(), last)
    for token in (of_a(exp=NOW - 60), signed(MALLORY), of_a(aud="x"), of_b(exp=NOW - 60), signed(iss=OTHER)):
        with pytest.raises(BadCredential):
            await found(identify, token)
    assert not called


@pytest.mark.parametrize("way", [by_api_key, by_api_key_later])
@pytest.mark.parametrize("key", API_KEYS)
async def test_an_opaque_key_is_left_to_the_next_way(two: Two, way: Identify, key: str) -> None:
    """A credential that is no signed token is no bad token, however many dots it has, before or after the JWT ways."""
    ways = two.ways()
    for identify in (first_of(*ways, way), first_of(ways[0], way, ways[1]), first_of(way, *ways)):
        assert await found(identify, key) == "robot@example.org"
    assert (two.a.fetches, two.b.fetches) == (0, 0)


UNCLAIMED = (
    "another-opaque-key",
    "a.b.c",
    raw({"alg": "ES256"}, {**CLAIMS, "iss": "https://third.example"}, b"x" * 64),
)


@pytest.mark.parametrize("token", UNCLAIMED)
@pytest.mark.parametrize(("first", "second"), [("refuse", "refuse"), ("refuse", "anonymous"), ("anonymous", "refuse")])
async def test_a_credential_that_no_way_claims_is_refused_where_one_way_refuses(
    two: Two, token: str, first: OnBad, second: OnBad
) -> None:
    """It never becomes anonymous unless every way says so; a lone way refuses it as any bad token."""
    a, b = two.ways(first)[0], two.ways(second)[1]
    for identify in (first_of(a, b), first_of(a, by_api_key_later, b), first_of(first_of(a, b), by_api_key)):
        with pytest.raises(BadCredential):
            await found(identify, token)
    refusing = a if first == "refuse" else b
    with pytest.raises(BadCredential):
        await found(refusing, token)
    assert await found(first_of(*two.ways("anonymous")), token) is None


async def test_a_bad_header_of_another_way_makes_no_refused_token_anonymous() -> None:
    """The way of the header has no say over the token: a trusted peer's bad header beside it changes nothing."""
    tokens = BearerJWT(secret=SECRET, issuer=ISSUER, on_bad="refuse", wall_clock=wall_clock)
    ways = first_of(tokens, TrustedHeader("x-email", peers=["10.0.0.1"]))
    for headers in ([], [(b"x-email", b"a,b")]):
        scope = {**asking("an-opaque-key"), "client": ("10.0.0.1", 1)}
        scope["headers"] = [*scope["headers"], *headers]
        with pytest.raises(BadCredential):
            await resolved(ways(scope))


async def test_the_way_that_claims_a_bad_token_decides_whether_it_is_anonymous(two: Two) -> None:
    """Another way that refuses has no say in it, before or after."""
    a, b = two.ways("anonymous")[0], two.ways("refuse")[1]
    for identify in (first_of(a, b), first_of(b, a)):
        assert await found(identify, of_a(exp=NOW - 60)) is None
        with pytest.raises(BadCredential):
            await found(identify, of_b(exp=NOW - 60))


TWO_READINGS = {
    "issuer twice": f'{json.dumps(dict(CLAIMS))[:-1]}, "iss": "{OTHER}"}}',
    "issuer a list": {**CLAIMS, "iss": [OTHER]},
    "issuer a number": {**CLAIMS, "iss": 7},
    "claims no object": "[]",
    "claims no JSON": b"{iss}",
}


@pytest.mark.parametrize("payload", TWO_READINGS.values(), ids=TWO_READINGS)
async def test_claims_with_two_readings_are_refused_and_not_passed_on(two: Two, payload: object) -> None:
    """A token that cannot be read in one way only is bad for the first way that reads it."""
    with pytest.raises(BadCredential):
        await found(first_of(*two.ways(), lambda scope: Identity(BOB)), raw({"alg": "ES256"}, payload, b"x" * 64))


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg": "ES256", "alg": "RS256"}',
        b'{"alg": "ES256"',
        b' {"alg": 1e999, "x": NaN}',
        b'\xef\xbb\xbf{"alg": "RS256"}',
    ],
)
async def test_a_header_with_two_readings_is_refused_and_not_passed_on(two: Two, header: bytes) -> None:
    """A credential that begins like a JWT header counts as a token: another parser could read it as one."""
    token = f"{b64(header)}.{of_b().split('.')[1]}.x"
    with pytest.raises(BadCredential):
        await found(first_of(*two.ways(), lambda scope: Identity(BOB)), token)


async def test_a_way_without_an_issuer_leaves_tokens_it_has_no_key_type_for() -> None:
    """A shared secret says nothing of tokens that are signed by published keys, and the other way round."""
    async with publishing(key_set(RSA)) as server:
        by_secret = BearerJWT(secret=SECRET, on_bad="refuse", wall_clock=wall_clock)
        by_key_set = BearerJWT(server.url, on_bad="refuse", wall_clock=wall_clock)
        for identify in (first_of(by_secret, by_key_set), first_of(by_key_set, by_secret)):
            assert await found(identify, of_b()) == BOB
            assert await found(identify, signed(OCT, "HS256")) == ADA
            with pytest.raises(BadCredential):
                await found(identify, signed(OCT, "HS256", exp=NOW - 60))


class TestWithoutIssuers:
    """Two key sets whose issuers are not stated: the key that fits says which way a token is of."""

    @staticmethod
    def ways(two: Two, on_bad: OnBad) -> tuple[BearerJWT, BearerJWT]:
        """Return a way for each key set."""
        return (
            BearerJWT(two.a.url, on_bad=on_bad, wall_clock=wall_clock),
            BearerJWT(two.b.url, on_bad=on_bad, wall_clock=wall_clock),
        )

    @pytest.mark.parametrize("on_bad", ["anonymous", "refuse"])
    async def test_users_of_each_are_identified(self, two: Two, on_bad: OnBad) -> None:
        """Also while the key set of the other cannot be fetched; its own users are a 503."""
        for identify in (first_of(*self.ways(two, on_bad)), first_of(*reversed(self.ways(two, on_bad)))):
            assert await found(identify, of_a()) == ADA
            assert await found(identify, of_b()) == BOB
        two.a.status = 503
        for identify in (first_of(*self.ways(two, on_bad)), first_of(*reversed(self.ways(two, on_bad)))):
            for _ in range(2):
                assert await found(identify, of_b()) == BOB
                with pytest.raises(SourceUnavailable):
                    await found(identify, of_a())

    async def test_a_forged_token_is_left_to_no_other_credential(self, two: Two) -> None:
        """A token that no key verifies is refused, and a session or a header beside it does not replace it."""
        for identify in (
            first_of(*self.ways(two, "refuse"), lambda scope: Identity(BOB)),
            first_of(first_of(*self.ways(two, "refuse")), lambda scope: Identity(BOB)),
            first_of(self.ways(two, "refuse")[0], lambda scope: Identity(BOB), self.ways(two, "refuse")[1]),
        ):
            for token in (signed(MALLORY), signed(MALLORY, header={"kid": "new"})):
                with pytest.raises(BadCredential):
                    await found(identify, token)
        two.a.status = 503
        with pytest.raises(SourceUnavailable):
            await found(first_of(*self.ways(two, "refuse"), lambda scope: Identity(BOB)), signed(MALLORY))

    async def test_one_way_that_refuses_suffices(self, two: Two) -> None:
        """A way without an issuer does not make a token anonymous that it could not verify."""
        lenient, strict = self.ways(two, "anonymous")[0], two.ways("refuse")[1]
        for identify in (first_of(lenient, strict), first_of(strict, lenient)):
            with pytest.raises(BadCredential):
                await found(identify, signed(MALLORY))
            assert await found(identify, of_a(exp=NOW - 60)) is None
