"""What the claims of a verified token must say, and whom they name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from ...address import is_legible
from ..base import Identity

# Supabase's own keys are tokens too: they name a part of the installation, and no user.
_NO_USERS: Final = frozenset({"anon", "service_role", "supabase_admin"})


class BadToken(Exception):
    """A token that is no good; the message says why and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What claims must say.

    Args:
        issuer: who has to have issued the token (`iss`); None for anybody whose key is known.
        audiences: whom it may be for (`aud`); with none anybody.
        leeway: seconds by which clocks may differ.
        claim: the top-level claim that names the user.
        tenant: of all these users.
    """

    issuer: str | None
    audiences: Collection[str]
    leeway: float
    claim: str
    tenant: str

    def identity(self, claims: Mapping[str, object], now: float) -> Identity:
        """Return whom claims name, at a time in seconds since the epoch (RFC 7519, section 4.1).

        Raises:
            BadToken: they name nobody, or not here, or not now.
        """
        expires_at = self._expiry(claims, now)
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise BadToken("it was issued by somebody else")
        if self.audiences and not self._is_for_us(claims.get("aud")):
            raise BadToken("it is for somebody else")
        role = claims.get("role")
        if any(_text(each) in _NO_USERS for each in (role if isinstance(role, list) else [role])):
            raise BadToken("it is a key of the project, and names no user")
        subject = claims.get("sub")
        return Identity(self._name(claims), self.tenant, subject if isinstance(subject, str) else None, expires_at)

    def _expiry(self, claims: Mapping[str, object], now: float) -> float:
        expires_at = _seconds(claims.get("exp"))
        if expires_at is None:
            raise BadToken("it has no time at which it expires")
        if now >= expires_at + self.leeway:
            raise BadToken("it has expired")
        if "nbf" in claims:
            begins_at = _seconds(claims["nbf"])
            if begins_at is None or now < begins_at - self.leeway:
                raise BadToken("it is not valid yet")
        return expires_at + self.leeway

    def _is_for_us(self, audience: object) -> bool:
        named = audience if isinstance(audience, list) else [audience]
        return any(_text(each) in self.audiences for each in named)

    def _name(self, claims: Mapping[str, object]) -> str:
        name = claims.get(self.claim)
        if not isinstance(name, str) or not is_legible(name):
            raise BadToken(f"its claim {self.claim!r} names nobody")
        if self.claim == "email":
            # Whoever may enter any address without proving that it is his would be whoever he likes.
            if claims.get("email_verified", True) not in (True, "true"):
                raise BadToken("its e-mail address is not verified")
            if "@" not in name:
                raise BadToken("its claim 'email' is no address")
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
