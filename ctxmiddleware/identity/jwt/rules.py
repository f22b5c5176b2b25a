"""What the claims of a verified token must say, and whom they name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from ...address import is_legible
from ...principal import Identity, Kind, is_utf8, subject_fault
from ..credential import Fault

# Supabase's own keys are tokens too: they name a part of the installation, and no user.
_NO_USERS: Final = frozenset({"anon", "service_role", "supabase_admin"})


class BadToken(Exception):
    """A token that is no good; the message says why and repeats nothing of it.

    Args:
        message: why.
        fault: the counter's label.
    """

    is_foreign: ClassVar = False

    def __init__(self, message: str, fault: Fault) -> None:
        self.fault: Final = fault
        super().__init__(message)


class ForeignToken(BadToken):
    """A credential of another issuer, or of another form than a signed token."""

    is_foreign: ClassVar = True


@dataclass(frozen=True, slots=True)
class Rules:
    """What claims must say.

    Args:
        issuer: who has to have issued the token (`iss`); None for anybody whose key is known.
        audiences: whom it may be for (`aud`); with none anybody.
        leeway: seconds by which clocks may differ.
        claim: the top-level claim that names the user.
        kind: what that claim holds, an address or a subject.
        tenant: of all these users; None is none for addresses, and the token's issuer for subjects.
    """

    issuer: str | None
    audiences: Collection[str]
    leeway: float
    claim: str
    kind: Kind
    tenant: str | None

    def identity(self, claims: Mapping[str, object], now: float) -> Identity:
        """Return whom claims name, at a time in seconds since the epoch (RFC 7519, section 4.1).

        Raises:
            BadToken: they name nobody, or not here, or not now.
        """
        expires_at = self._expiry(claims, now)
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise BadToken("it was issued by another issuer", "issuer")
        if self.audiences and not self._is_for_us(claims.get("aud")):
            raise BadToken("it is for another audience", "audience")
        role = claims.get("role")
        if any(_text(each) in _NO_USERS for each in (role if isinstance(role, list) else [role])):
            raise BadToken("it is a key of the project, and names no user", "claims")
        name = claims.get(self.claim)
        if self.kind == "subject":
            return Identity(subject=self._subject(name), tenant=self._tenant(claims), expires_at=expires_at)
        subject = _text(claims.get("sub"))
        return Identity(
            self._address(name, claims),
            subject=None if subject is None or subject_fault(subject) else subject,
            tenant=self.tenant or "",
            expires_at=expires_at,
        )

    def _tenant(self, claims: Mapping[str, object]) -> str:
        if self.tenant is not None:
            return self.tenant
        # A subject is unique for one issuer only (OpenID Connect Core 1.0, section 2).
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or not issuer or not is_utf8(issuer):
            raise BadToken("it names no issuer, and its subject is unique for one issuer only", "issuer")
        return issuer

    def _subject(self, name: object) -> str:
        if not isinstance(name, str):
            raise BadToken(f"its claim {self.claim!r} names nobody", "claims")
        fault = subject_fault(name)
        if fault is not None:
            raise BadToken(f"its claim {self.claim!r} {fault}", "claims")
        return name

    def _expiry(self, claims: Mapping[str, object], now: float) -> float:
        expires_at = _seconds(claims.get("exp"))
        if expires_at is None:
            raise BadToken("it has no time at which it expires", "malformed")
        if now >= expires_at + self.leeway:
            raise BadToken("it has expired", "expired")
        if "nbf" in claims:
            begins_at = _seconds(claims["nbf"])
            if begins_at is None or now < begins_at - self.leeway:
                raise BadToken("it is not valid yet", "not yet valid")
        return expires_at + self.leeway

    def _is_for_us(self, audience: object) -> bool:
        named = audience if isinstance(audience, list) else [audience]
        return any(_text(each) in self.audiences for each in named)

    def _address(self, name: object, claims: Mapping[str, object]) -> str:
        if not isinstance(name, str) or not is_legible(name):
            raise BadToken(f"its claim {self.claim!r} names nobody", "claims")
        if self.claim == "email":
            # Whoever may enter any address without proving that it is his would be whoever he likes.
            if claims.get("email_verified", True) not in (True, "true"):
                raise BadToken("its e-mail address is not verified", "claims")
            if "@" not in name:
                raise BadToken("its claim 'email' is no address", "claims")
        return name


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    """Return a NumericDate (RFC 7519, section 2), or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None
