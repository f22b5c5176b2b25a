"""What an identity is: one spelling for one address, and nothing to read in logs."""

from __future__ import annotations

import msgspec
import pytest

from ctxmiddleware import Identity

from ..people import ADA


@pytest.mark.parametrize("email", [ADA, ADA.upper(), f" {ADA}\n", f"\t{ADA.title()}\r\n"])
def test_spellings_of_one_address_share_a_key(email: str) -> None:
    """Case and surrounding white space make no other person."""
    assert Identity(email).key == ("", ADA)


@pytest.mark.parametrize(
    "email", ["\u212aelvin@example.com", "\u0130@example.com", "\xa0ada@example.com", "ada @example.com"]
)
def test_what_unicode_calls_the_same_is_not(email: str) -> None:
    """Only A-Z and ASCII white space are touched, as in the SQL: anything more could be somebody else."""
    assert Identity(email).key == ("", email)


def test_tenants_do_not_share() -> None:
    """One address in two tenants is two people."""
    assert Identity(ADA, "a").key != Identity(ADA, "b").key
    assert Identity(ADA, "a", subject="1", expires_at=9.0).key == Identity(ADA, "a").key


@pytest.mark.parametrize("email", ["", " ", "\t\r\n\f\v"])
def test_nobody_is_none_and_not_an_empty_address(email: str) -> None:
    """An empty address would be one person for everybody."""
    with pytest.raises(ValueError, match="return None"):
        Identity(email)


def test_an_identity_cannot_be_changed_and_does_not_show_the_address() -> None:
    """It is frozen, and its repr may be logged."""
    identity = Identity(ADA, "t", subject="s-1")
    with pytest.raises(AttributeError):
        identity.email = "other"  # type: ignore[misc]  # that it cannot be is the test
    assert repr(identity) == "Identity(email='***', tenant='t')"
    assert ADA not in f"{identity!s} {identity!r} {[identity]}"
    assert hash(identity) == hash(Identity(ADA, "t", subject="s-1"))
    assert msgspec.structs.replace(identity, tenant="u").key == ("u", ADA)
