"""Who is signed in: tokens are signed here for the samples, and verified as an app does that has only Starlette."""

from __future__ import annotations

import time

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.requests import HTTPConnection

AUDIENCE = "demo-app"
_ALGORITHM = "HS256"


def signed(email: str, secret: str, *, lasts: float = 8 * 3600) -> str:
    """Return a token for somebody, as a sign-in would hand it out.

    Args:
        email: whose.
        secret: what the app verifies tokens with.
        lasts: seconds until it expires.
    """
    now = int(time.time())
    claims = {"email": email, "aud": AUDIENCE, "iat": now, "exp": now + int(lasts)}
    return jwt.encode({"alg": _ALGORITHM}, claims, OctKey.import_key(secret))


class SignedIn(BaseUser):
    """Somebody whose token was right.

    Args:
        email: the address in the token.
        expires_at: seconds since the epoch after which the token is worth nothing.
    """

    def __init__(self, email: str, expires_at: float) -> None:
        self.email = email
        self.expires_at = expires_at

    @property
    def is_authenticated(self) -> bool:
        """Always."""
        return True

    @property
    def display_name(self) -> str:
        """The address."""
        return self.email


class BearerTokens(AuthenticationBackend):
    """Verifies `Authorization: Bearer <token>`: signature, audience and expiry.

    Args:
        secret: what tokens are signed with.
    """

    def __init__(self, secret: str) -> None:
        self._key = OctKey.import_key(secret)
        self._claims = jwt.JWTClaimsRegistry(
            exp={"essential": True}, aud={"essential": True, "value": AUDIENCE}, email={"essential": True}
        )

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return who sent the request, or None: a token that is not right makes nobody of its sender.

        It is no error of its own, because the cache's admin takes bearer tokens that are none of these.
        """
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
            self._claims.validate(claims)
        except (JoseError, ValueError):
            return None
        return AuthCredentials(["authenticated"]), SignedIn(str(claims["email"]), float(claims["exp"]))
