"""Who asks, by a JSON Web Token that a sign-in has handed out."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from starlette.types import Scope

from ...errors import ConfigurationError
from ...principal import Identity, Kind
from ...secret import Secret
from ...tracebacks import sheltered
from ..base import MaybeIdentity
from ..credential import BadCredential, ForeignCredential, NoUserNamed, OnBad, UndecidedCredential, checked_answer
from ..headers import sent
from ..naming import Naming, check_naming
from ..rejection import Rejection, note_rejection
from . import keys
from .arguments import key_faults, rule_faults
from .document import Document
from .hints import hints
from .published import FetchTimes, PublishedKeys
from .remembered import Remembered
from .rules import BadToken, ForeignToken, Rules

logger = logging.getLogger("ctxmiddleware.identity")

MAX_TOKEN: Final = 16 * 1024
# After the keys were last confirmed, seconds for which a verified token is taken without another look at its signature.
REMEMBERED_SECONDS: Final = 600.0

FindToken: TypeAlias = Callable[[Scope], "str | None"]
"""Finds the token of a scope: a cookie's, for one; None where there is none."""


class BearerJWT:
    """Identifies by a signed token: of Supabase, or of any OpenID provider.

    Its signature is checked with ES256, RS256 or EdDSA by the published keys, with HS256 by the shared secret; which
    key goes with which algorithm is the key's to say, never the token's. A token that was verified is remembered until
    it expires, and for ten minutes after the keys were last confirmed at most.

    Args:
        jwks_url: where the keys are published (RFC 7517).
        secret: the shared secret of HS256, 32 bytes or more.
        issuer: whose tokens they are (`iss`); None leaves that to the keys. Two issuers may know two people by one
            address: each has a BearerJWT and a tenant of its own, in `first_of`. A token that states another issuer is
            left to the next way there, before any key is fetched for it.
        audience: whom they are for (`aud`), one or several; None takes those for anybody.
        claim: the top-level claim that names the user. Never one that its user may edit.
        kind: what that claim holds: the user's `"email"`, or a `"subject"`, which is taken as it is; by default an
            address for the claim `email`, and a subject for any other.
        tenant: the tenant of all these users; by default none for addresses, and the token's issuer for subjects,
            which are unique for one issuer only.
        leeway: seconds by which clocks may differ.
        on_bad: what a request with a token that is no good is: `"anonymous"`, or to `"refuse"` with a 401.
        token: finds the token; None takes it from `Authorization: Bearer`.
        remembered: how many tokens are remembered.
        times: when published keys are fetched again.
        wall_clock: seconds since the epoch, which `exp` and `nbf` are compared with.
        clock: monotonic seconds.

    Raises:
        ConfigurationError: it cannot work so; every fault is named.
        MissingExtra: the library that verifies tokens is not installed.
    """

    @sheltered
    def __init__(
        self,
        jwks_url: str | None = None,
        *,
        secret: Secret | str | None = None,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = "authenticated",
        claim: str = "email",
        kind: Kind | None = None,
        tenant: str | None = None,
        leeway: float = 10.0,
        on_bad: OnBad = "anonymous",
        token: FindToken | None = None,
        remembered: int = 50_000,
        times: FetchTimes | None = None,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        kept = Secret(secret) if isinstance(secret, str) else secret
        # What collects errors keeps the locals of the frames that raised them.
        del secret
        faults = key_faults(jwks_url, kept)
        faults += rule_faults(issuer=issuer, claim=claim, leeway=leeway, remembered=remembered, token=token)
        named_by = kind or ("email" if claim == "email" else "subject")
        faults += check_naming(named_by, tenant)
        if faults:
            raise ConfigurationError(*faults)
        keys.need_library()
        self.takes_tokens: Final = token is None
        self._is_refusing = checked_answer(on_bad) == "refuse"
        self.naming: Final = Naming(named_by, tenant, issuer)
        self._rules = Rules(issuer, _several("audience", audience), leeway, claim, named_by, tenant)
        self._token = token or bearer_token
        self._wall_clock = wall_clock
        self._clock = clock
        self._remembered = Remembered(remembered, wall_clock, clock)
        self._own = [] if kept is None else [keys.shared_secret(kept)]
        self._published: PublishedKeys | None = None
        if jwks_url is not None:
            fetch, changed = Document(jwks_url).fetch, self._remembered.clear
            self._published = PublishedKeys(fetch, changed, times, clock, is_of_any_issuer=issuer is None)
        self._compare = hints(self._rules, jwks_url, has_secret=kept is not None)

    def __repr__(self) -> str:
        return f"<BearerJWT: {self._published!r}, {len(self._own)} secrets, {len(self._remembered)} remembered>"

    def __call__(self, scope: Scope) -> MaybeIdentity | Awaitable[MaybeIdentity]:
        """Return whom the token of a scope names, or None where there is none; at once where no key has to be fetched.

        Raises:
            BadCredential: it is no good, and such requests are refused; `ForeignCredential` where it is another's.
            SourceUnavailable: no key is known, and none can be fetched.
        """
        try:
            token = self._token(scope)
            if token is None:
                return None
            return self._remembered.get(token) or self._verified(token, scope)
        except BadToken as error:
            self._reject(error, scope)
            return None

    def _verified(self, token: str, scope: Scope) -> Identity | Awaitable[MaybeIdentity]:
        if len(token) > MAX_TOKEN:
            raise BadToken("it is too long", "malformed")
        opened = keys.opened(token, self._rules.issuer)
        found = keys.fitting(opened, self._own)
        if found:
            return self._identity(opened, found, self._clock())
        if self._published is None or opened.algorithm not in keys.PUBLISHED:
            # A token with a stated issuer claims to be its token; else no key here could have signed it.
            kind = ForeignToken if self._rules.issuer is None else BadToken
            raise kind("no key here is for its algorithm", "unknown key")
        known = self._published.known(opened)
        if known is None:
            return self._later(opened, self._published, scope)
        try:
            return self._identity(opened, known, self._published.confirmed_at)
        except BadToken as error:
            if error.fault != "signature" or not self._published.may_be_replaced():
                raise
        return self._later(opened, self._published, scope)

    async def _later(self, token: keys.Opened, published: PublishedKeys, scope: Scope) -> MaybeIdentity:
        try:
            return self._identity(token, await published.fetched(token), published.confirmed_at)
        except BadToken as error:
            # A key that cannot be fetched may have replaced the one of its name.
            if error.fault == "signature" and published.is_failing:
                raise published.unavailable() from None
            self._reject(error, scope)
            return None

    def _identity(self, token: keys.Opened, found: list[keys.Key], confirmed_at: float) -> Identity:
        identity = self._rules.identity(keys.claims_of(token, found), self._wall_clock())
        self._remembered.put(token.token, identity, confirmed_at + REMEMBERED_SECONDS)
        return identity

    def _reject(self, error: BadToken, scope: Scope) -> None:
        logger.debug("a token is no good: %s", error)
        hint = f"a token is no good: {error}{self._compare.get(error.fault, '')}"
        # Without an issuer stated, only a key that fits shows that a token is this way's.
        is_undecided = self._rules.issuer is None and error.fault in ("signature", "unknown key")
        is_foreign = error.is_foreign or is_undecided
        note_rejection(scope, Rejection(error.fault, hint, is_foreign, self.takes_tokens))
        if self._is_refusing:
            raise _refusal(error, is_undecided=is_undecided)(str(error), fault=error.fault) from None


def _refusal(error: BadToken, *, is_undecided: bool) -> type[BadCredential]:
    if error.is_foreign:
        return ForeignCredential
    if is_undecided:
        return UndecidedCredential
    return NoUserNamed if error.fault == "claims" else BadCredential


def bearer_token(scope: Scope) -> str | None:
    """Return the token in the Authorization header (RFC 6750, section 2.1), or None where there is none.

    Raises:
        BadToken: there are several of them.
    """
    headers = sent(scope, b"authorization")
    if len(headers) > 1:
        raise BadToken("there is more than one Authorization header", "malformed")
    scheme, _, token = (headers[0] if headers else b"").decode("latin-1").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _several(argument: str, given: str | Iterable[str] | None) -> frozenset[str]:
    if given is None:
        return frozenset()
    several = frozenset([given] if isinstance(given, str) else given)
    if not several or not all(isinstance(each, str) and each for each in several):
        raise ConfigurationError(f"{argument} was {given!r}; give one or more texts, or None")
    return several
