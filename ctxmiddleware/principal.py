"""Which user a context is for: an Identity, and the key that contexts are kept under."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from .address import WHITE_SPACE, normalise

Kind: TypeAlias = Literal["email", "subject"]

KINDS: Final[tuple[Kind, ...]] = ("email", "subject")
# OpenID Connect Core 1.0, section 2: a subject has 255 characters at most.
MAX_SUBJECT_BYTES: Final = 255
# One letter says the kind, so that no subject's key is an address' key.
_LETTERS: Final[dict[Kind, str]] = {"email": "e", "subject": "s"}
_KINDS: Final[dict[str, Kind]] = {letter: kind for kind, letter in _LETTERS.items()}


class _Address(msgspec.Struct, frozen=True):
    email: str | None = None


class Identity(_Address, frozen=True, kw_only=True):
    """A user, keyed by an e-mail address or by a subject.

    Args:
        email: the address, in any spelling: the e-mail rule says which spellings are one user.
        subject: the identifier of an identity provider, compared byte for byte.
        tenant: keeps identity providers or customers apart: no two tenants share a context.
        expires_at: seconds since the epoch after which no stale context is served for this identity.
        key: which of the two the context is kept under, `"email"` or `"subject"`; by default the address if there is
            one. The other one has no influence on which context it is.

    Raises:
        ValueError: the key is missing or empty, the subject has more than 255 bytes, or a text cannot be written as
            UTF-8.
        TypeError: an address, a subject or a tenant is no text, or the expiry is no number.
    """

    subject: str | None = None
    tenant: str = ""
    expires_at: float | None = None
    key: Kind | None = None

    def __post_init__(self) -> None:
        for field in ("email", "subject", "tenant"):
            _check_text(field, getattr(self, field))
        if self.subject is not None:
            _check_subject(self.subject)
        _check_time(self.expires_at)
        if self.email is not None and not self.email.strip(WHITE_SPACE):
            raise ValueError("Identity.email is empty: return None for an anonymous request")
        key = self.key or ("subject" if self.email is None else "email")
        if key not in KINDS:
            raise ValueError(f"Identity.key was {key!r}; allowed are 'email' and 'subject'")
        if getattr(self, key) is None:
            lacking = f"no {key}, which is its key" if self.key else "neither an email nor a subject"
            raise ValueError(f"Identity has {lacking}: return None for an anonymous request")
        msgspec.structs.force_setattr(self, "key", key)

    def __repr__(self) -> str:
        # Reprs end in logs, and an address or a subject is a person.
        return f"Identity({self.key}='***', tenant={self.tenant!r})"

    @property
    def name(self) -> str:
        """The address in its normalised spelling, or the subject: what the identity is keyed by."""
        if self.key == "subject":
            return self.subject or ""
        return normalise(self.email or "")

    @property
    def cache_key(self) -> tuple[str, str]:
        """The tenant, and the kind with the name: what a context is kept under."""
        if self.key == "subject":
            return self.tenant, f"s{self.subject}"
        return self.tenant, f"e{normalise(self.email or '')}"

    @classmethod
    def from_cache_key(cls, cache_key: tuple[str, str]) -> Identity:
        """Return the identity that holds nothing but what a cache key says."""
        tenant, name = cache_key
        match _KINDS[name[:1]]:
            case "email":
                return cls(name[1:], tenant=tenant)
            case "subject":
                return cls(subject=name[1:], tenant=tenant)


def as_identity(email_or_identity: str | Identity) -> Identity:
    """Return an identity; a bare text is an e-mail address.

    Raises:
        ValueError: the address is empty, or cannot be written as UTF-8.
        TypeError: it is neither.
    """
    return email_or_identity if isinstance(email_or_identity, Identity) else Identity(email_or_identity)


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def subject_fault(subject: str) -> str | None:
    """Return why a text cannot be a subject, None where it can."""
    if not subject:
        return "is empty"
    if not is_utf8(subject):
        return "is not UTF-8 text"
    length = len(subject.encode())
    return f"has {length} bytes; {MAX_SUBJECT_BYTES} are the most" if length > MAX_SUBJECT_BYTES else None


def _check_subject(subject: str) -> None:
    fault = subject_fault(subject)
    if fault is not None:
        raise ValueError(f"Identity.subject {fault}")


def _check_text(field: str, value: object) -> None:
    if value is None and field != "tenant":
        return
    if not isinstance(value, str):
        raise TypeError(f"Identity.{field} was {type(value).__name__}; it is text")
    if not is_utf8(value):
        raise ValueError(f"Identity.{field} is not UTF-8 text")


def _check_time(expires_at: object) -> None:
    if expires_at is None:
        return
    if isinstance(expires_at, bool) or not isinstance(expires_at, (int, float)):
        raise TypeError(f"Identity.expires_at was {type(expires_at).__name__}; it is seconds since the epoch")
    if math.isnan(expires_at):
        raise ValueError("Identity.expires_at is not a number")


def names_of(users: str | Identity | Iterable[str | Identity]) -> list[str]:
    """Return the names of the cache keys of one user or of many, each once.

    Raises:
        ValueError: an address is empty, or there is no user.
    """
    many = [users] if isinstance(users, (str, Identity)) else users
    names = list(dict.fromkeys(as_identity(each).cache_key[1] for each in many))
    if not names:
        raise ValueError("no user was given")
    return names
