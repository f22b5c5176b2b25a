"""Whether each way to identify users can name them by subjects, and keeps the subjects of two providers apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from ctxmiddleware import (
    BadCredential,
    BearerJWT,
    ConfigurationError,
    ContextPlugin,
    Identify,
    Identity,
    ScopeUser,
    SupabaseSource,
    TrustedHeader,
    first_of,
)
from ctxmiddleware.principal import MAX_SUBJECT_BYTES
from ctxmiddleware.testing import StaticSource

from .issuer import ADA, ISSUER, OCT, SECRET, asked, signed, wall_clock

pytestmark = pytest.mark.anyio

OTHER = "https://another-issuer.example"


def _bearer(**changed: Any) -> BearerJWT:
    return BearerJWT(secret=SECRET, wall_clock=wall_clock, **{"claim": "sub", **changed})


def _token(**changed: Any) -> str:
    return signed(OCT, "HS256", **changed)


@pytest.mark.parametrize("subject", ["aB3", "Ab3", "auth0|5f7c", " x ", "\u5e73", "a,b", "\x00", "x" * 255])
async def test_the_subject_of_a_token_is_taken_as_it_is(subject: str) -> None:
    """With its case and its white space, in the tenant of its issuer."""
    identity = await asked(_bearer(), _token(sub=subject))
    assert identity is not None
    assert identity.cache_key == Identity(subject=subject, tenant=ISSUER).cache_key
    assert identity.email is None


async def test_subjects_of_two_issuers_never_meet() -> None:
    """One BearerJWT of any issuer, and two in `first_of`, keep them in the tenants of their issuers."""
    anyone = _bearer(issuer=None)
    both = first_of(_bearer(issuer=ISSUER), _bearer(issuer=OTHER))
    for identify in (anyone, both):
        found = [await asked(identify, _token(sub="7", iss=issuer)) for issuer in (ISSUER, OTHER)]  # type: ignore[arg-type]  # called with a scope alike
        assert [each and (each.tenant, each.name) for each in found] == [(ISSUER, "7"), (OTHER, "7")]


async def test_a_subject_without_an_issuer_is_refused_unless_the_tenant_is_stated() -> None:
    """It is unique for one issuer only, and this one is not known."""
    for changed in ({"without": ["iss"]}, {"iss": "\ud800"}, {"iss": ""}, {"iss": 7}):
        with pytest.raises(BadCredential, match="names no issuer"):
            await asked(_bearer(on_bad="refuse"), _token(**changed))
    identity = await asked(_bearer(tenant="acme"), _token(without=["iss"], sub="7"))
    assert identity is not None
    assert identity.cache_key == Identity(subject="7", tenant="acme").cache_key


@pytest.mark.parametrize("subject", ["", "x" * (MAX_SUBJECT_BYTES + 1), "\u00e4" * 128, "\ud800", 7, None, ["7"]])
async def test_a_claim_that_cannot_be_a_subject_names_no_user(subject: object) -> None:
    """Empty, too long, not UTF-8, or no text; the reason repeats nothing of it."""
    with pytest.raises(BadCredential, match=r"its claim 'sub' (is empty|has \d+ bytes|is not UTF-8|names nobody)"):
        await asked(_bearer(on_bad="refuse"), _token(sub=subject))


async def test_the_kind_of_any_other_claim_can_be_stated() -> None:
    """A claim other than `email` is a subject unless the BearerJWT says that it holds addresses."""
    token = _token(upn="Ada@Example.org")
    by_subject = await asked(_bearer(claim="upn"), token)
    by_email = await asked(_bearer(claim="upn", kind="email"), token)
    assert by_subject is not None
    assert by_subject.cache_key == Identity(subject="Ada@Example.org", tenant=ISSUER).cache_key
    assert by_email is not None
    assert by_email.cache_key == Identity(ADA).cache_key


async def test_an_identity_by_address_carries_the_subject_beside_it() -> None:
    """One that cannot be a subject is left out: it is not the key."""
    for subject, carried in (("7", "7"), ("x" * 256, None), (7, None)):
        identity = await asked(_bearer(claim="email"), _token(sub=subject))
        assert identity is not None
        assert (identity.key, identity.name, identity.subject, identity.tenant) == ("email", ADA, carried, "")


@pytest.mark.parametrize("expires_at", ["soon", True])
def test_an_expiry_that_is_no_number_is_refused(expires_at: Any) -> None:
    """Compared with the time it would fail in the middle of a request."""
    with pytest.raises(TypeError, match=r"expires_at was (str|bool)"):
        Identity(ADA, expires_at=expires_at)
    with pytest.raises(ValueError, match="not a number"):
        Identity(ADA, expires_at=float("nan"))


def _header(value: bytes, **options: Any) -> Identity | None:
    header = TrustedHeader("X-User", unix_socket=True, kind="subject", **options)
    return header({"type": "http", "headers": [(b"x-user", value)], "client": None})


def test_a_trusted_header_may_hold_a_subject() -> None:
    """As it was written, but for the white space around a header's value (RFC 9110, section 5.5)."""
    assert _header(b" aB3 ", tenant="acme") == Identity(subject="aB3", tenant="acme")
    assert _header("\u5e73".encode()) == Identity(subject="\u5e73")


@pytest.mark.parametrize("value", [b"", b" ", b"a, b", b"\xff", b"x" * 256])
def test_a_header_that_cannot_be_a_subject_names_no_user(value: bytes) -> None:
    """Two joined headers are not taken for one subject with a comma."""
    assert _header(value) is None
    with pytest.raises(BadCredential):
        _header(value, on_bad="refuse")


@dataclass
class User:
    """A user as a host framework has one."""

    id: object
    pk: object = "pk-1"
    email: str = ADA
    is_authenticated: bool = True


@pytest.mark.parametrize(
    ("value", "subject"),
    [("aB3", "aB3"), (7, "7"), (UUID(int=1), "00000000-0000-0000-0000-000000000001")],
)
def test_the_user_of_a_scope_may_have_a_subject(value: object, subject: str) -> None:
    """A text as it is; a whole number and a UUID in their one spelling."""
    assert ScopeUser(kind="subject")({"user": User(value)}) == Identity(subject=subject)
    named = ScopeUser("pk", kind="subject", tenant="acme")
    assert named({"user": User(value)}) == Identity(subject="pk-1", tenant="acme")


@pytest.mark.parametrize("value", [None, "", True, 1.5, b"7", "x" * 256, "\ud800"])
def test_a_user_without_a_subject_is_an_error(value: object) -> None:
    """A signed-in user must not become anonymous, nor share a key with another one."""
    with pytest.raises(TypeError, match=r"has no subject in \.id"):
        ScopeUser(kind="subject")({"user": User(value)})


def _ways(*tenants: str | None) -> list[Identify]:
    return [TrustedHeader(f"X-{n}", unix_socket=True, kind="subject", tenant=each) for n, each in enumerate(tenants)]


@pytest.mark.parametrize(
    "ways",
    [
        _ways(None, None),
        [*_ways(None), ScopeUser(kind="subject")],
        [_bearer(issuer=ISSUER), _bearer(issuer=ISSUER, audience="other")],
        [_bearer(), _bearer()],
        [first_of(*_ways(None)), *_ways(None)],
        [_bearer(issuer=ISSUER), _bearer(issuer=None)],
        [_bearer(issuer=None), *_ways("acme")],
        [_bearer(tenant=""), *_ways(None)],
        [_bearer(issuer=ISSUER), *_ways(ISSUER)],
    ],
)
def test_two_ways_whose_subjects_could_meet_are_refused(ways: list[Identify]) -> None:
    """Neither says whose subjects they are, so that two users could be taken for one."""
    with pytest.raises(ConfigurationError, match="two ways of first_of give subjects"):
        first_of(*ways)


@pytest.mark.parametrize(
    "ways",
    [
        _ways("acme", None),
        _ways("acme", "acme"),
        [_bearer(issuer=ISSUER), _bearer(issuer=OTHER), *_ways(None)],
        [ScopeUser(), TrustedHeader("X-Mail", unix_socket=True), *_ways(None)],
        [lambda scope: None, *_ways(None)],
    ],
)
def test_ways_that_say_whose_subjects_they_give_are_taken(ways: list[Identify]) -> None:
    """Also the same tenant twice, which says that they are the same users."""
    assert len(first_of(*ways).ways) == len(ways)


@pytest.mark.parametrize(
    "make", [ScopeUser, lambda **given: TrustedHeader("X-User", unix_socket=True, **given), _bearer]
)
def test_an_unknown_kind_and_a_tenant_that_is_no_text_are_refused(make: Any) -> None:
    """Both are named at once."""
    with pytest.raises(ConfigurationError) as refused:
        make(kind="id", tenant=7)
    assert "kind was 'id'; allowed are 'email' and 'subject'" in str(refused.value)
    assert "tenant was int; it is a text" in str(refused.value)
    with pytest.raises(ConfigurationError, match="tenant is not UTF-8 text"):
        make(tenant="\ud800")


def test_a_source_that_finds_users_by_address_is_not_given_subjects() -> None:
    """The plugin is refused at construction where `identify` says that it gives subjects."""
    source = SupabaseSource("https://project.example", "sb_secret_x")
    for identify in (_bearer(), first_of(ScopeUser(), _bearer())):
        with pytest.raises(ConfigurationError, match="identify names users by subject, and SupabaseSource finds them"):
            ContextPlugin(source=source, identify=identify)
    ContextPlugin(source=source, identify=_bearer(claim="email"))
    ContextPlugin(source=StaticSource({}), identify=_bearer())
