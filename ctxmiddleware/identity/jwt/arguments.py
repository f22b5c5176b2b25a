"""Whether tokens can be verified with what somebody gave: told as sentences, at the start."""

from __future__ import annotations

import re
from inspect import iscoroutinefunction
from typing import Final
from urllib.parse import urlsplit

from ...option import Count, Seconds
from ...secret import Secret
from . import keys

_LEEWAY: Final = Seconds("Seconds by which clocks may differ.", least=0, most=300)
_REMEMBERED: Final = Count("Tokens that are remembered.", least=1)
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")
# What everybody may know, and what lies beside the secret where people copy it from.
_NO_SECRET: Final = re.compile(r".*-- ?BEGIN |ssh-|ecdsa-sha2-|sb_(?:secret|publishable)_|eyJ[^.]*\.[^.]*\.", re.DOTALL)


def key_faults(jwks_url: str | None, secret: object) -> list[str]:
    """Return what is wrong with the two places keys may come from; neither is shown."""
    faults = []
    if jwks_url is None and secret is None:
        faults.append("BearerJWT needs jwks_url, where the keys are published, or the shared secret of HS256")
    if jwks_url is not None and not _is_web_address(jwks_url):
        faults.append("jwks_url is not an http or https URL without a user or password")
    text: object = secret.reveal() if isinstance(secret, Secret) else secret
    if text is None:
        return faults
    if not isinstance(text, str):
        # A TypeError of the pattern would have the secret in its frames.
        return [*faults, f"the secret is of type {type(text).__name__}; it is a text"]
    if _NO_SECRET.match(text):
        faults.append("the secret is a key of another kind, or a token: it is what tokens are signed with by HS256")
    elif len(text.encode("utf-8", "surrogateescape")) < keys.LEAST_SECRET_BYTES:
        least = keys.LEAST_SECRET_BYTES
        faults.append(f"the secret is shorter than {least} bytes, which HS256 asks for (RFC 7518, section 3.2)")
    return faults


def rule_faults(*, issuer: object, claim: str, leeway: object, remembered: object, token: object) -> list[str]:
    """Return what is wrong with the other arguments."""
    faults = []
    if issuer is not None and (not isinstance(issuer, str) or not issuer):
        faults.append(f"issuer was {issuer!r}; it is one text, or None: give each issuer a BearerJWT of its own")
    if not claim:
        faults.append("claim is empty; it is the name of a claim, such as 'email' or 'sub'")
    faults += _LEEWAY.faults("leeway", leeway) + _REMEMBERED.faults("remembered", remembered)
    # A coroutine is no token, and would be one that nobody awaits.
    if token is not None and (not callable(token) or isinstance(token, type) or iscoroutinefunction(token)):
        faults.append("token is no ordinary function of a scope that returns a token or None")
    return faults


def _is_web_address(url: str) -> bool:
    if _BLANK.search(url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
