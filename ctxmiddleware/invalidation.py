"""How users are forgotten everywhere: one, many or all, and what is reported and logged of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, Protocol, cast

import anyio
import msgspec

from .cache.shared import NOWHERE, Reach, SharedTierFailed
from .clock import monotonic
from .errors import InvalidationFailed
from .failure_log import log_failure
from .pseudonym import Pseudonyms
from .reports import Confirmed, InvalidationReport, Silent

logger = logging.getLogger("ctxmiddleware.resolver")

MOST_USERS: Final = 1000
_AT_ONCE: Final = 32
# Values loaded meanwhile may be kept past the time that counts from the return: forget them once more.
_AGAIN_AFTER: Final = 0.01
_NOT_MARKED: Final = "Redis took the invalidation, and did not say that its time to settle begins with its end"
_MOST_NAMED: Final = 10


class Invalidated(Protocol):
    """The part of the cache that an invalidation needs."""

    @property
    def settle(self) -> float:
        """Seconds after an invalidation in which its transaction may still commit."""
        ...

    async def settle_from_now(self, names: Sequence[str] | None) -> bool:
        """Let the time in which transactions may commit begin now; return whether every instance is sure to know it."""
        ...

    async def renew(self, names: Sequence[str] | None, known_silent: Collection[str]) -> Reach:
        """Forget what was loaded since names, or everyone, were invalidated; return what the other instances said."""
        ...

    async def invalidate(self, name: str | None) -> tuple[int, Reach]:
        """Forget a name, or all names where it is None; return how many entries, and the replies of other instances."""
        ...


class Invalidator:
    """Invalidates users, and reports the result.

    Args:
        cache: forgets the users.
        tell_source: receives each name, or None for all names, and how many seconds ago it was invalidated.
        pseudonyms: name users in logs.
        shared: whether other processes can be reached.
        me: returns the name of this instance.
        clock: monotonic seconds, in which a suspended machine counts.
    """

    def __init__(
        self,
        cache: Invalidated,
        tell_source: Callable[[str | None, float], None],
        pseudonyms: Pseudonyms,
        *,
        shared: bool,
        me: Callable[[], str],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._me = me
        self._clock = clock
        self._cache = cache
        self._tell_source = tell_source
        self._pseudonyms = pseudonyms
        self._shared = shared

    async def one(self, name: str | None) -> InvalidationReport:
        """Forget the name of a cache key in every tenant, or all users where it is None.

        Raises:
            InvalidationFailed: Redis did not take the invalidation.
        """
        began_at = self._clock()
        report = await self._one(name)
        return await self._settled(None if name is None else [name], began_at, report)

    async def _settled(
        self, names: Sequence[str] | None, began_at: float, report: InvalidationReport
    ) -> InvalidationReport:
        """Let the time to settle begin with the return of an invalidation; return what is reported of it then.

        What was loaded while it waited, past the end of its first time to settle, is forgotten once more.

        Raises:
            InvalidationFailed: Redis did not take the invalidation.
        """
        if not self._cache.settle:
            return report
        if self._clock() >= began_at + _AGAIN_AFTER:
            report = await self._renewed(names, report)
        if not (await self._cache.settle_from_now(names) or await self._cache.settle_from_now(names)):
            raise self._not_told_again(SharedTierFailed(_NOT_MARKED), names, report)
        return report

    async def _renewed(self, names: Sequence[str] | None, report: InvalidationReport) -> InvalidationReport:
        try:
            reach = await self._cache.renew(names, {each.instance for each in report.silent})
        except SharedTierFailed as failure:
            raise self._not_told_again(failure, names, report) from failure
        renewed = self._report(0, reach, None, report.settles_within, 0.0, is_clear=names is None)
        return msgspec.structs.replace(_merged([report, renewed], report.duration_ms), was_known=report.was_known)

    def _not_told_again(
        self, failure: SharedTierFailed, names: Sequence[str] | None, report: InvalidationReport
    ) -> InvalidationFailed:
        failed = msgspec.structs.replace(report, redis="failed", others_stop_within=None)
        users = [self._pseudonyms.of_name(name) for name in (names or ())[:_MOST_NAMED]]
        extra = {"everybody": names is None, "users": users, **msgspec.to_builtins(failed)}
        return self._failed(failure, failed, extra)

    async def _one(self, name: str | None) -> InvalidationReport:
        started = time.perf_counter()
        dropped, reach, failure = 0, NOWHERE, None
        self._tell_source(name, 0.0)
        try:
            dropped, reach = await self._cache.invalidate(name)
        except SharedTierFailed as error:
            failure, dropped = error, error.dropped
        settles = self._cache.settle * (2 if name is None else 1)
        report = self._report(dropped, reach, failure, settles, time.perf_counter() - started, is_clear=name is None)
        user = None if name is None else self._pseudonyms.of_name(name)
        extra = {"everybody": name is None, "user": user, **msgspec.to_builtins(report)}
        if failure is not None:
            raise self._failed(failure, report, extra) from failure
        words = "nothing was kept of the user" if report.was_known is False else "contexts were invalidated"
        logger.info(words, extra=extra)
        return report

    async def of(self, names: Sequence[str] | None) -> InvalidationReport:
        """Forget names, or all users where they are None.

        Raises:
            InvalidationFailed: Redis did not take the invalidation.
        """
        return await (self.one(None) if names is None else self.many(names))

    async def many(self, names: Iterable[str]) -> InvalidationReport:
        """Forget several names, each as `one` does; the report is of all together.

        Raises:
            InvalidationFailed: Redis did not take one or more invalidations; the others were forgotten.
        """
        each_once = list(dict.fromkeys(names))
        if len(each_once) == 1:
            return await self.one(each_once[0])
        reports: list[InvalidationReport] = []
        failures: dict[str, InvalidationFailed] = {}
        errors: list[Exception] = []
        waiting = iter(each_once)
        started, began_at = time.perf_counter(), self._clock()

        async def work() -> None:
            for name in waiting:
                try:
                    reports.append(await self._one(name))
                except InvalidationFailed as failure:
                    failures[name] = failure
                    reports.append(cast("InvalidationReport", failure.report))
                except Exception as error:  # noqa: BLE001 - raised below, alone and not in a group
                    errors.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(_AT_ONCE):
                tasks.start_soon(work)
        if errors:
            raise errors[0]
        report = _merged(reports, (time.perf_counter() - started) * 1000)
        if failures:
            others = [name for name in each_once if name not in failures]
            with contextlib.suppress(InvalidationFailed):
                await self._cache.settle_from_now(list(failures))
                report = await self._settled(others, began_at, report) if others else report
            first = next(iter(failures.values()))
            raise InvalidationFailed(report, self._which(list(failures), len(each_once))) from first
        return await self._settled(each_once, began_at, report)

    def _which(self, failed: Sequence[str], of: int) -> str:
        users = [self._pseudonyms.of_name(name) for name in failed[:_MOST_NAMED]]
        rest = ["..."] if len(failed) > _MOST_NAMED else []
        return f"{len(failed)} of {of} users, in logs {', '.join([*users, *rest])}"

    def failed(self, failure: SharedTierFailed) -> InvalidationFailed:
        """Return the error for a hold that Redis did not take; nothing was invalidated."""
        report = self._report(0, NOWHERE, failure, 0.0, 0.0, is_clear=False)
        return self._failed(failure, report, msgspec.to_builtins(report))

    def _failed(
        self, failure: SharedTierFailed, report: InvalidationReport, extra: dict[str, Any]
    ) -> InvalidationFailed:
        reason = failure.__cause__ or failure
        log_failure(logger, logging.ERROR, "an invalidation did not reach Redis", error=reason, extra=extra)
        return InvalidationFailed(report, str(failure))

    def _report(
        self,
        dropped: int,
        reach: Reach,
        failure: SharedTierFailed | None,
        settles_within: float,
        seconds: float,
        *,
        is_clear: bool,
    ) -> InvalidationReport:
        is_told = self._shared and failure is None
        unlisted = reach.unlisted or (None, None)
        return InvalidationReport(
            reach="fleet" if self._shared else "this process only",
            memory=dropped,
            redis="absent" if not self._shared else "failed" if failure else "done",
            was_known=None if failure or is_clear else dropped > 0 or reach.knew is True,
            confirmed=(
                Confirmed(reach.me or self._me(), 0.0),
                *(Confirmed(instance, round(ms, 3)) for instance, ms in reach.confirmed),
            ),
            silent=tuple(Silent(instance, stops_within) for instance, stops_within in reach.silent),
            unlisted_stop_within=unlisted[0],
            unlisted_because=unlisted[1],
            others_stop_within=max([0.0, *_bounds(reach)]) if is_told else None,
            settles_within=settles_within,
            duration_ms=round(seconds * 1000, 3),
        )


def _bounds(reach: Reach) -> list[float]:
    unlisted = () if reach.unlisted is None else (reach.unlisted[0],)
    return [*unlisted, *(seconds for _, seconds in reach.silent)]


def _merged(reports: Sequence[InvalidationReport], duration_ms: float) -> InvalidationReport:
    """Return one report of several: what holds for each of them."""
    silent = _longest((each.instance, each.stops_within) for report in reports for each in report.silent)
    confirmed = _longest((each.instance, each.ms) for report in reports for each in report.confirmed)
    unlisted = max(reports, key=_unlisted)
    known = [report.was_known for report in reports]
    others = [report.others_stop_within for report in reports]
    states = {report.redis for report in reports}
    return InvalidationReport(
        reach=unlisted.reach,
        memory=sum(report.memory for report in reports),
        redis="failed" if "failed" in states else unlisted.redis,
        was_known=None if None in known else any(known),
        confirmed=tuple(Confirmed(name, ms) for name, ms in confirmed.items() if name not in silent),
        silent=tuple(Silent(name, seconds) for name, seconds in sorted(silent.items())),
        unlisted_stop_within=unlisted.unlisted_stop_within,
        unlisted_because=unlisted.unlisted_because,
        others_stop_within=None if None in others else max(each for each in others if each is not None),
        settles_within=max(report.settles_within for report in reports),
        duration_ms=round(duration_ms, 3),
    )


def _unlisted(report: InvalidationReport) -> float:
    # None says that no instance can be missing, which 0.0 does not.
    return -1.0 if report.unlisted_stop_within is None else report.unlisted_stop_within


def _longest(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in pairs:
        found[name] = max(value, found.get(name, 0.0))
    return found
