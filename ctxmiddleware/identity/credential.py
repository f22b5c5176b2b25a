"""What becomes of a credential that is no good, and the word for it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ..errors import ConfigurationError, ContextError

OnBad: TypeAlias = Literal["anonymous", "refuse"]

ANSWERS: Final = ("anonymous", "refuse")


class BadCredential(ContextError):
    """A request carries a credential that is no good, and is to be refused with a 401 for it.

    Args:
        reason: why, in words that repeat nothing of the credential.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the credential is no good: {reason}")


def checked_answer(on_bad: str) -> str:
    """Return what is to become of bad credentials.

    Raises:
        ConfigurationError: it is none of the two.
    """
    if on_bad not in ANSWERS:
        raise ConfigurationError(f"on_bad was {on_bad!r}; allowed are 'anonymous' and 'refuse'")
    return on_bad
