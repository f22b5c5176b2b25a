"""Which keys a project has, in both of Supabase's forms."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Self

from joserfc import jwt
from joserfc.jwk import OctKey

_TEN_YEARS = 10 * 365 * 86_400


@dataclass(frozen=True, repr=False)
class Keys:
    """The keys of one project.

    Args:
        jwt_secret: what PostgREST checks signatures with; 32 characters or more.
        service_role: legacy key, a JWT that passes row security.
        anon: legacy key, a JWT for everybody.
        secret: `sb_secret_...`, which the gateway exchanges for `service_role`.
        publishable: `sb_publishable_...`, which the gateway exchanges for `anon`.
    """

    jwt_secret: str
    service_role: str
    anon: str
    secret: str
    publishable: str

    @classmethod
    def mint(cls, jwt_secret: str | None = None) -> Self:
        """Make new keys, with a new secret where none is given."""
        jwt_secret = jwt_secret or secrets.token_urlsafe(48)
        return cls(
            jwt_secret=jwt_secret,
            service_role=signed(jwt_secret, role="service_role"),
            anon=signed(jwt_secret, role="anon"),
            secret=f"sb_secret_{secrets.token_urlsafe(24)}",
            publishable=f"sb_publishable_{secrets.token_urlsafe(24)}",
        )


def signed(jwt_secret: str, **claims: str | int) -> str:
    """Return an HS256 token with these claims, as Supabase issues its legacy keys."""
    now = int(time.time())
    payload = {"iss": "supabase", "ref": "local", "iat": now, "exp": now + _TEN_YEARS} | claims
    return jwt.encode({"alg": "HS256", "typ": "JWT"}, payload, OctKey.import_key(jwt_secret))
