"""What an identity is: a tenant and one key, an e-mail address or a subject, and nothing to read in logs."""

from __future__ import annotations

from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware import Identity
from ctxmiddleware.cache.names import digest
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.principal import MAX_SUBJECT_BYTES, as_identity
from ctxmiddleware.pseudonym import Pseudonyms

from .people import ADA

_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.parametrize("email", [ADA, ADA.upper(), f" {ADA}\n", f"\t{ADA.title()}\r\n"])
def test_spellings_of_one_address_share_a_key(email: str) -> None:
    """Case and surrounding white space make no other user."""
    assert Identity(email).cache_key == Identity(ADA).cache_key
    assert Identity(email).name == ADA


@pytest.mark.parametrize(
    "email", ["\u212aelvin@example.com", "\u0130@example.com", "\xa0ada@example.com", "ada @example.com"]
)
def test_unicode_spellings_are_other_addresses(email: str) -> None:
    """Only A-Z and ASCII white space are normalised, as in the SQL: anything more could be another user."""
    assert Identity(email).name == email


@pytest.mark.parametrize("subject", ["aB3", "Ab3", " aB3", "aB3 ", ADA, ADA.upper(), "\x00", "\u212a", "\U0001f600"])
def test_a_subject_is_compared_byte_for_byte(subject: str) -> None:
    """Case and white space make another user: an identity provider may have given out both."""
    assert Identity(subject=subject).name == subject
    others = {"aB3", "Ab3", "ab3", subject.strip(), subject.upper(), subject.lower()} - {subject, ""}
    assert Identity(subject=subject).cache_key not in {Identity(subject=other).cache_key for other in others}


@given(st.lists(_texts, min_size=2, max_size=6, unique=True))
def test_no_two_identities_share_a_key_anywhere(texts: list[str]) -> None:
    """Tenants, addresses and subjects of the same texts, in memory, in Redis, in its messages and in the log."""
    keys, pseudonyms = KeySpace("test", b"shape"), Pseudonyms()
    identities = [
        Identity(text, tenant=tenant) if kind == "email" else Identity(subject=text, tenant=tenant)
        for text in texts
        for kind in ("email", "subject")
        for tenant in ("", *texts)
        if text.strip(" \t\n\r\f\v")
    ]
    for one, other in combinations(identities, 2):
        same_name = one.key == other.key and one.name == other.name
        same = same_name and one.tenant == other.tenant
        assert (one.cache_key == other.cache_key) is same
        assert (keys.of(one.cache_key).value == keys.of(other.cache_key).value) is same
        assert (keys.called(one.cache_key) == keys.called(other.cache_key)) is same
        assert (digest(one.cache_key[1]) == digest(other.cache_key[1])) is same_name
        assert (pseudonyms.of(one) == pseudonyms.of(other)) is same_name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), ("", "ab")),
        (("1:", "a"), ("", "1:a")),
        (("a\x00", "b"), ("a", "\x00b")),
        (("ab", "c"), ("a", "bc")),
        (("10", "x"), ("1", "0x")),
    ],
)
def test_partition_and_name_are_divided_by_length(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Whatever text they hold: a separator could be part of either."""
    keys = KeySpace("test", b"shape")
    assert keys.of(one).value != keys.of(other).value


@given(tenant=_texts | st.just(""), name=_texts, kind=st.sampled_from(["email", "subject"]))
def test_a_cache_key_is_read_back_as_the_identity_it_is_of(tenant: str, name: str, kind: str) -> None:
    """With the tenant and the one key, and without any other field of a caller's token."""
    if not name.strip(" \t\n\r\f\v"):
        return
    more = {"email": ADA, "subject": "other", "expires_at": 9.0}
    identity = Identity(**{**more, kind: name}, tenant=tenant, key=kind)  # type: ignore[arg-type]  # of several types
    read = Identity.from_cache_key(identity.cache_key)
    assert read.cache_key == identity.cache_key
    assert (read.key, read.name, read.tenant, read.expires_at) == (kind, identity.name, tenant, None)
    assert (read.email is None) is (kind == "subject")
    assert (read.subject is None) is (kind == "email")


def test_an_address_beside_a_subject_is_the_key_unless_said_otherwise() -> None:
    """The other one of the two has no part in the key."""
    both = Identity(ADA, subject="7")
    assert both.cache_key == Identity(ADA).cache_key == Identity(ADA, subject="8").cache_key
    by_subject = Identity(ADA, subject="7", key="subject")
    assert by_subject.cache_key == Identity(subject="7").cache_key != both.cache_key


def test_a_bare_text_is_an_address() -> None:
    """In every method that takes a user."""
    assert as_identity(ADA.upper()).cache_key == Identity(ADA).cache_key
    assert as_identity("aB3").key == "email"
    identity = Identity(subject="aB3")
    assert as_identity(identity) is identity


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "neither an email nor a subject"),
        ({"email": ""}, "Identity.email is empty: return None"),
        ({"email": "\t\r\n\f\v "}, "Identity.email is empty: return None"),
        ({"subject": ""}, "Identity.subject is empty"),
        ({"subject": "x" * (MAX_SUBJECT_BYTES + 1)}, "Identity.subject has 256 bytes; 255 are the most"),
        ({"subject": "\u00e4" * 128}, "Identity.subject has 256 bytes; 255 are the most"),
        ({"email": ADA, "key": "subject"}, "no subject, which is its key"),
        ({"subject": "7", "key": "email"}, "no email, which is its key"),
        ({"subject": "7", "key": "tenant"}, "Identity.key was 'tenant'; allowed are 'email' and 'subject'"),
        ({"email": "ada\ud800@example.org"}, "Identity.email is not UTF-8 text"),
        ({"subject": "\udfff"}, "Identity.subject is not UTF-8 text"),
        ({"email": ADA, "tenant": "\ud800"}, "Identity.tenant is not UTF-8 text"),
    ],
)
def test_texts_that_cannot_be_a_key_are_refused(fields: dict[str, str], fault: str) -> None:
    """With a sentence that says which, and repeats nothing of a user."""
    with pytest.raises(ValueError, match=fault):
        Identity(**fields)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"email": 7}, "Identity.email was int; it is text"),
        ({"subject": 7}, "Identity.subject was int; it is text"),
        ({"email": ADA, "tenant": None}, "Identity.tenant was NoneType; it is text"),
    ],
)
def test_values_that_are_no_text_are_refused(fields: dict[str, object], fault: str) -> None:
    """A number and its text would be two keys of one user."""
    with pytest.raises(TypeError, match=fault):
        Identity(**fields)  # type: ignore[arg-type]  # that is the point


def test_the_longest_subject_is_taken() -> None:
    """255 bytes, as OpenID Connect has it."""
    assert Identity(subject="x" * MAX_SUBJECT_BYTES).name == "x" * MAX_SUBJECT_BYTES


def test_an_identity_cannot_be_changed_and_does_not_show_the_user() -> None:
    """It is frozen, and its repr may be logged."""
    identity = Identity(ADA, tenant="t", subject="s-1")
    with pytest.raises(AttributeError):
        identity.email = "other"  # type: ignore[misc]  # that it cannot be is the test
    assert repr(identity) == "Identity(email='***', tenant='t')"
    assert repr(Identity(subject="s-1")) == "Identity(subject='***', tenant='')"
    assert ADA not in f"{identity!s} {identity!r} {[identity]}"
    assert hash(identity) == hash(Identity(ADA, tenant="t", subject="s-1"))
    assert msgspec.structs.replace(identity, tenant="u").cache_key == Identity(ADA, tenant="u").cache_key
