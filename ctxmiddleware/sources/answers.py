"""What an answer of PostgREST, or of a gateway before it, means for us."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from ..errors import SourceError, SourceMisconfigured, SourceUnavailable
from ..tracebacks import sheltered
from .exchange import NotSupported, OutOfTime, RequestRefused
from .way_out import MIGRATED_SCHEMA, NO_GATEWAY, migration_note, object_in

LONGEST_RETRY_AFTER: Final = 3600.0
# An exhausted pool is not helped by asking again at once.
_POOL_BACK_OFF: Final = 1.0


@dataclass(frozen=True, slots=True)
class Value:
    """A body to be decoded.

    Args:
        body: the bytes of the answer.
        total: how many rows there are, where the server counted them.
    """

    body: bytes
    total: int | None = None

    def __repr__(self) -> str:
        return f"<Value of {len(self.body)} bytes>"


@dataclass(frozen=True, slots=True)
class FunctionMissing:
    """The function that was called is not installed, or the server has not seen it yet."""


@sheltered
def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    function: str | None,
    now: float,
    schema: str = MIGRATED_SCHEMA,
) -> Value | FunctionMissing:
    """Return the value of an answer, or that there is no such function; raise what it means instead.

    The code in its body decides, then its status, never what its text says. The codes are those of PostgREST
    (docs.postgrest.org, "Errors") and of PostgreSQL (Appendix A).

    Args:
        status: the HTTP status.
        headers: the response headers, their names in lower case.
        body: the body, which may be anything.
        function: the name of the function that was called, or None where a table was read.
        now: seconds since the epoch, for a Retry-After that is a date.
        schema: where the tables are.

    Raises:
        SourceUnavailable: a fault that may be gone the next time; OutOfTime where the time of this one query ran out.
        SourceMisconfigured: nothing will be right until an operator mends it; RequestRefused where a firewall may have
            said so of what this one request held.
        SourceError: no retry and no setting explains the answer; NotSupported where the database lacks what was asked
            for.
    """
    if 200 <= status < 300:
        return Value(body, _total(headers.get("content-range", "")))
    error = _error_of(body)
    if function is not None and error.code is not None and _is_absence(error.code, error.message, function):
        return FunctionMissing()
    fault = None if error.code is None else _by_code(error.code, status)
    fault = fault or _by_status(status, is_postgrest=_is_postgrest(headers))
    if isinstance(fault, SourceMisconfigured):
        raise type(fault)(_whole_reason(str(fault), error, schema))
    if isinstance(fault, SourceUnavailable):
        waiting = retry_after(headers.get("retry-after"), now)
        fault.retry_after = fault.retry_after if waiting is None else waiting
    raise fault


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds a Retry-After asks for (RFC 9110, 10.2.3), at most an hour, or None where it cannot be read.

    Args:
        value: the header: seconds, or an HTTP date.
        now: seconds since the epoch.
    """
    if value is None:
        return None
    # isdecimal alone takes digits of every script, and a number of 5,000 digits is refused by int(); white space of the
    # expression's own, such as \x1c, is none to float.
    value = value.strip(" \t")
    if re.fullmatch(r"[0-9]{1,15}", value):
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        waiting = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(waiting, 0.0), LONGEST_RETRY_AFTER) if math.isfinite(waiting) else None


class _Error(msgspec.Struct):
    code: str | None = None
    message: str = ""


def _error_of(body: bytes) -> _Error:
    try:
        return _read_error(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()


def _read_error(body: bytes) -> _Error:
    try:
        return msgspec.json.decode(body, type=_Error)
    except msgspec.ValidationError:
        # `message` may be null or an object at a gateway; the code is what counts.
        return _Error(msgspec.json.decode(body, type=_Code).code)


def _whole_reason(reason: str, error: _Error, schema: str) -> str:
    name = object_in(error.message, error.code or "")
    told = reason if name is None else f"{reason}: {name}"
    return told + migration_note(schema) if "migration" in told else told


def _is_postgrest(headers: Mapping[str, str]) -> bool:
    return headers.get("server", "").lower().startswith("postgrest")


class _Code(msgspec.Struct):
    code: str | None = None


_KEY_REFUSED: Final = "SUPABASE_KEY was refused: it is wrong, expired or revoked, or the key of another project"
_MISCONFIGURED: Final = {
    "PGRST106": "the schema (SUPABASE_SCHEMA) is not exposed: add it to the API's exposed schemas",
    "PGRST200": "two tables have no foreign key between them that the API knows: reload its schema cache",
    "PGRST201": "two tables have more than one foreign key between them",
    "PGRST203": "the function exists with more than one signature: keep the one the migration creates",
    "PGRST125": NO_GATEWAY,
    "PGRST204": "a column is missing, or the API's schema cache is stale",
    "PGRST205": "a table is missing, or the API's schema cache is stale",
    "PGRST300": "the API has no secret to check keys with: set its JWT secret (PGRST_JWT_SECRET)",
    "PGRST301": _KEY_REFUSED,
    "PGRST302": "SUPABASE_KEY did not reach the API: a request came there without a key",
    "PGRST303": _KEY_REFUSED,
    "42501": "a grant is missing for the role of SUPABASE_KEY: apply the shipped migration and its grants",
    "42883": "a function that is called inside the database is missing",
    "42703": "a column is missing in the database: the tables need those of `ctxmiddleware sql show reference_schema`",
    "42P01": "a table is missing in the database",
    "22023": "SUPABASE_KEY names a role that the database does not have",
    "25006": "the function writes, or is not marked STABLE, and cannot run on a read replica",
}
_BROKEN: Final = {"21000": "the address belongs to more than one employee, so the function answers nobody"}
_PASSING: Final = {
    "PGRST000": "the API cannot reach its database",
    "PGRST001": "the API cannot reach its database",
    "PGRST002": "the API is loading its schema cache",
    "55P03": "a lock was not to be had in time",
}
_RAN_OUT_OF_TIME: Final = "57014"
_NOT_SUPPORTED: Final = "0A000"
# A query that was too much, or that met another: the next one, or a smaller one, may be answered.
_OF_ONE_QUERY: Final = ("55P03", "40")
_PASSING_CLASSES: Final = {
    "08": "the API lost its database connection",
    "40": "the transaction was rolled back by the database",
    "53": "the database is out of resources",
    "58": "the database's own machine failed it",
    "57P": "the database is shutting down or starting up",
}


def _by_code(code: str, status: int) -> SourceError | None:
    if not code and status == 400:
        # A database connection that was cut, and not ended by PostgreSQL itself, has no code in PostgREST 12.
        return SourceUnavailable("the API lost its database connection (an error with an empty code)")
    if code == "PGRST003":
        told = "the API's database connections are all busy (PGRST003)"
        return SourceUnavailable(told, retry_after=_POOL_BACK_OFF, outage=True)
    if code == _RAN_OUT_OF_TIME:
        return OutOfTime(f"the database cancelled the query: it ran over statement_timeout ({code})")
    if reason := _PASSING.get(code):
        return SourceUnavailable(f"{reason} ({code})", outage=not code.startswith(_OF_ONE_QUERY))
    if reason := _BROKEN.get(code):
        return SourceError(f"{reason} ({code})")
    if reason := _MISCONFIGURED.get(code):
        return SourceMisconfigured(f"{reason} ({code})")
    if re.fullmatch(r"[0-9A-Z]{5}", code):
        return _by_class(code, status)
    if re.fullmatch(r"PGRST[0-9]{3}", code) and not _passes(status):
        return SourceError(f"the API refused the request ({code}, status {status})")
    return None


def _is_absence(code: str, message: str, function: str) -> bool:
    if code == "PGRST202":
        return True
    # A stale schema cache lets the call through to the database, which names what it lacks: our function, or one that
    # ours calls. The text is PostgreSQL's and comes in many languages, but the name in it does not.
    return code == "42883" and re.search(rf"(?<!\w){re.escape(function)}\(", message) is not None


def _by_class(code: str, status: int) -> SourceError | None:
    for start, reason in _PASSING_CLASSES.items():
        if code.startswith(start):
            return SourceUnavailable(f"{reason} ({code})", outage=not code.startswith(_OF_ONE_QUERY))
    if code[:2] in {"42", "3F", "3D", "28"}:
        return SourceMisconfigured(f"the installation in the database is broken ({code})")
    if code.startswith("PT") and _passes(status):
        return None  # PostgREST's form of "answer with this status", raised by a function
    kind = NotSupported if code == _NOT_SUPPORTED else SourceError
    return kind(f"the database refused the request ({code}, status {status})")


_BY_STATUS: Final = {
    401: _KEY_REFUSED,
    402: "the project is restricted: its quota or its bill",
    403: "a gateway before the API refused the request",
    404: "nothing answers at this address: SUPABASE_URL must be the project's own URL, without a path",
}
# From 520 on they are Cloudflare's, which stands before every project: it could not reach the API.
_OUTAGES: Final = {429, 502, 503, 504, *range(520, 528), 530}


def _passes(status: int) -> bool:
    return status in {408, 425, 429} or status >= 500


def _by_status(status: int, *, is_postgrest: bool) -> SourceError:
    if _passes(status):
        return SourceUnavailable(f"the API answered with status {status}", outage=status in _OUTAGES)
    if status == 404 and is_postgrest:
        return SourceMisconfigured(f"{NO_GATEWAY} (status {status})")
    if reason := _BY_STATUS.get(status):
        kind = RequestRefused if status == 403 else SourceMisconfigured
        return kind(f"{reason} (status {status})")
    if 300 <= status < 400:
        return SourceMisconfigured(f"SUPABASE_URL redirects to another address (status {status}): give the final one")
    return SourceError(f"the API refused the request (status {status})")


def _total(content_range: str) -> int | None:
    counted = re.fullmatch(r"(?:\*|[0-9]+-[0-9]+)/([0-9]{1,15})", content_range)
    return int(counted[1]) if counted else None
