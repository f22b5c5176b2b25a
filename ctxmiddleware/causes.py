"""The answer to a failed request, and its log line."""

from __future__ import annotations

import logging
from typing import Final, get_args

from starlette.exceptions import HTTPException

from .accessors import Refusal
from .errors import SourceError, SourceUnavailable
from .failure_log import without_private
from .identity.credential import BadCredential, Fault, NoUserNamed
from .identity.rejection import Rejection
from .refusal import FAILED, Denial, bad_credential, no_user, rejected, unavailable
from .refusals import Cause

logger = logging.getLogger("ctxmiddleware.refusals")

_UNKNOWN: Final = (
    "the source knows no such user; compare the users that sign in with the rows of the source (`ctxmiddleware hash` "
    "computes the field `user` of this line)"
)
_INACTIVE: Final = "`is_active` says no of the user's context; compare it with the user's row"


class ResolutionFailed(Exception):
    """Carries what stands in logs for the user whose context could not be had; why is its cause."""


class Rejected(Exception):
    """Carries the answer that `identify` has raised; any other exception of that kind is a failure."""


def cause_of(reason: Refusal, rejection: Rejection | None, identify: object, user: str | None) -> Cause:
    """Return what explains that a request has no context.

    Args:
        reason: as the scope says it.
        rejection: what a way to identify users says of the credential.
        identify: the way that found none.
        user: the pseudonym of the user, where there is one.
    """
    if reason == "unknown":
        return Cause("unknown user", _UNKNOWN, fields={"user": user})
    if reason == "inactive":
        return Cause("inactive", _INACTIVE, fields={"user": user})
    if rejection is not None:
        return Cause(rejection.fault, rejection.hint)
    hint = getattr(identify, "hint", None)
    more = f": {hint}" if isinstance(hint, str) else ""
    return Cause("anonymous", f"no credential was found by {type(identify).__name__}{more}")


def denial_of(error: Exception, rejection: Rejection | None) -> tuple[Denial, Cause]:
    """Return the answer to a request that failed, which shows nothing of the inside, and what explains it.

    Args:
        error: what identifying or resolving raised.
        rejection: what a way to identify users says of the credential.
    """
    user: str | None = None
    if isinstance(error, ResolutionFailed) and isinstance(error.__cause__, Exception):
        user, error = str(error), error.__cause__
    if isinstance(error, Rejected) and isinstance(error.__cause__, HTTPException):
        status = error.__cause__.status_code
        return rejected(error.__cause__), Cause("rejected", f"identify raised HTTPException with status {status}")
    if isinstance(error, BadCredential):
        denial = (
            no_user(f"the credential is valid, but {error.reason}")
            if isinstance(error, NoUserNamed)
            else bad_credential(error.error)
        )
        if rejection is not None:
            return denial, Cause(rejection.fault, rejection.hint)
        # A label is never a text of a request.
        return denial, Cause(
            error.fault if error.fault in get_args(Fault) else "credential", without_private(str(error))
        )
    if isinstance(error, SourceUnavailable):
        fields: dict[str, object] = {"retry_after": error.retry_after, "user": user}
        return unavailable(error.retry_after), Cause(
            "unavailable", f"refused with 503: {without_private(str(error))}", fields=fields
        )
    if isinstance(error, SourceError):
        logger.debug("the source's answer is no context", exc_info=error)
        fields = {"user": user, "error_type": f"{type(error).__module__}.{type(error).__qualname__}"}
        return FAILED, Cause("broken", f"refused with 500: {without_private(str(error))}", logging.ERROR, fields=fields)
    hint = f"refused with 500: identifying or resolving raised {type(error).__name__}"
    return FAILED, Cause("broken", hint, logging.ERROR, error, {"user": user})
