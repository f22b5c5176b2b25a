"""Hints for an operator: the settings and claims to compare where tokens are refused, by fault."""

from __future__ import annotations

from collections.abc import Mapping

from ...shown import shown
from ..credential import Fault
from .rules import Rules


def hints(rules: Rules, jwks_url: str | None, *, has_secret: bool) -> Mapping[Fault, str]:
    """Return what follows the reason in log lines; of the configuration only, never of a token.

    Args:
        rules: what claims must say.
        jwks_url: where the keys are published.
        has_secret: whether tokens may be signed with a shared secret too.
    """
    places = [] if jwks_url is None else [f"the key set at {shown(jwks_url)}"]
    places += ["the shared secret"] if has_secret else []
    keys = " and ".join(places)
    clocks = f"; compare the clocks of this machine and of the issuer, which may differ by {rules.leeway:g} s"
    issuer = "not configured" if rules.issuer is None else shown(rules.issuer)
    audiences = ", ".join(sorted(map(shown, rules.audiences)))
    return {
        "expired": f"{clocks}, and how clients renew their tokens",
        "not yet valid": clocks,
        "issuer": f"; compare the claim 'iss', character by character, with the configured issuer: {issuer}",
        "audience": f"; compare the claim 'aud' with the configured audience: {audiences}",
        "signature": f"; compare the key it is signed with and {keys}",
        "unknown key": f"; compare its algorithm and 'kid' with {keys}",
        "malformed": "; compare the credential that clients send with a signed JWT (RFC 7519)",
        "claims": f"; compare the claims of the issuer's tokens with the configured claim {shown(rules.claim)}",
    }
