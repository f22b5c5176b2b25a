"""What becomes of a credential that is no good, and the word for it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ..errors import ConfigurationError, ContextError, SourceUnavailable

OnBad: TypeAlias = Literal["anonymous", "refuse"]

ANSWERS: Final = ("anonymous", "refuse")

Fault: TypeAlias = Literal[
    "expired",
    "not yet valid",
    "issuer",
    "audience",
    "signature",
    "unknown key",
    "malformed",
    "claims",
    "unknown user",
    "untrusted peer",
    "no user on the scope",
    "credential",
]
"""Why a credential gives no identity, as counters and logs name it; `credential` where a callable says nothing more."""


class BadCredential(ContextError):
    """A request carries a credential that is no good, and is to be refused with a 401 for it.

    Args:
        reason: why, in words that repeat nothing of the credential.
        fault: the counter's label.
        error: the error code of the answer (RFC 6750, section 3.1); None where the credential is no bearer token.
    """

    def __init__(
        self, reason: str, *, fault: Fault = "credential", error: Literal["invalid_token"] | None = "invalid_token"
    ) -> None:
        self.reason = reason
        self.fault: Final = fault
        self.error: Final = error
        super().__init__(f"the credential is no good: {reason}")


class ForeignCredential(BadCredential):
    """A credential is not this way's: of another issuer or another form; `first_of` goes on with the next way."""


class UndecidedCredential(BadCredential):
    """A token is not verified by a way that states no issuer; in `first_of` the other ways of tokens are asked too."""


class KeysUnavailable(SourceUnavailable):
    """The keys of tokens cannot be fetched.

    Args:
        retry_after: seconds after which another try is worth it.
        is_undecided: whether the token may be of another issuer than these keys, for none is stated.
    """

    def __init__(self, retry_after: float, *, is_undecided: bool) -> None:
        self.is_undecided: Final = is_undecided
        super().__init__("the keys of tokens cannot be fetched", retry_after=retry_after)


class NoUserNamed(BadCredential):
    """A credential is good and names no user, or none by its e-mail address: a 403, for another token is no use."""


def checked_answer(on_bad: str) -> str:
    """Return what is to become of bad credentials.

    Raises:
        ConfigurationError: it is none of the two.
    """
    if on_bad not in ANSWERS:
        raise ConfigurationError(f"on_bad was {on_bad!r}; allowed are 'anonymous' and 'refuse'")
    return on_bad
