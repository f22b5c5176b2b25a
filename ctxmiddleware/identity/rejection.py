"""Why a way gives no identity although a credential was sent: noted on the scope, for `first_of`, counters and logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from starlette.types import Scope

from .credential import Fault

REJECTIONS_KEY: Final = "ctxmiddleware_rejections"


class Rejection(NamedTuple):
    """Why a credential gives no identity; neither text repeats anything of the credential.

    Args:
        fault: the counter's label.
        hint: what an operator has to compare.
        is_foreign: whether the credential is another issuer's, or of another form, and may be another way's.
        takes_tokens: whether the way verifies the token in the Authorization header.
    """

    fault: Fault
    hint: str
    is_foreign: bool = False
    takes_tokens: bool = False


def note_rejection(scope: Scope, rejection: Rejection) -> None:
    """Note a rejection on a scope, after those that are there."""
    scope.setdefault(REJECTIONS_KEY, []).append(rejection)


def rejections_on(scope: Scope) -> Sequence[Rejection]:
    """Return the rejections that are noted on a scope, in their order."""
    return cast("Sequence[Rejection]", scope.get(REJECTIONS_KEY, ()))


def take_rejection(scope: Scope) -> Rejection | None:
    """Remove what is noted on a scope; return the rejection that explains most, a credential's own way before others.

    Of rejections as foreign, one by the issuer says more than one by the form.
    """
    if REJECTIONS_KEY not in scope:
        return None
    noted = cast("Sequence[Rejection]", scope.pop(REJECTIONS_KEY))
    return min(noted, key=lambda each: (each.is_foreign, each.is_foreign and each.fault != "issuer"), default=None)
