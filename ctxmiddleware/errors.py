"""Every error of the library, under one base."""

from __future__ import annotations

from collections.abc import Sequence


class ContextError(Exception):
    """Base of every error this library raises on purpose."""


class ConfigurationError(ContextError):
    """Settings or an installation that cannot work until an operator changes them.

    Args:
        *faults: one sentence each; the message lists them all.
    """

    def __init__(self, *faults: str) -> None:
        self.faults: tuple[str, ...] = faults
        super().__init__(_listed(faults))


class MissingExtra(ConfigurationError):
    """An optional dependency is needed and not installed.

    Args:
        what: what needs it.
        extra: the name of the extra that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an optional dependency: pip install 'ctxmiddleware[{extra}]'")


class NotOpen(ContextError):
    """Something was used before it was opened; the message says what to write."""


class MiddlewareMissing(ContextError):
    """A context was asked for on a request that no UserContextMiddleware has seen."""


class SourceError(ContextError):
    """The source answered, but not with a context: a malformed row, an ambiguous address, an unknown answer."""


class SourceMisconfigured(SourceError, ConfigurationError):
    """The source answers nobody until an operator mends it: a missing grant, a refused key, a broken function."""


class SourceUnavailable(SourceError):
    """The source cannot answer now and may answer later.

    Args:
        message: what happened.
        retry_after: seconds after which another try is worth it, or None where the source said nothing.
        outage: whether it can answer nobody now, so that asking for fewer users at once is no use.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, outage: bool = False) -> None:
        self.retry_after = retry_after
        self.outage = outage
        super().__init__(message)


class InvalidationFailed(ContextError):
    """An invalidation did not reach every tier; what was reached is in the report.

    Args:
        report: the `InvalidationReport` of what happened in each tier.
        reason: what kept it from Redis.
    """

    def __init__(self, report: object, reason: str = "") -> None:
        self.report = report
        super().__init__("; ".join(["the invalidation did not reach Redis", *filter(None, [reason]), str(report)]))


def _listed(faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    return "\n".join([f"{len(faults)} faults in the configuration:", *(f"  - {fault}" for fault in faults)])
