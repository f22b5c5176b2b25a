"""Whether what is read of the processes is read rightly: logs, levels, and reports of invalidations."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from .changes import named, reported
from .company import Standing, facts
from .history import Asked, Told, Verdict
from .leaks import Held, Leaks, Level, leaks
from .logs import unhandled
from .report import Report
from .tally import Tally


def line(level: str, logger: str, text: str, *errors: str, trace: str = "") -> str:
    """Return a line as the app writes it."""
    return json.dumps({"level": level, "logger": logger, "text": text, "errors": errors, "trace": trace})


@pytest.mark.parametrize(
    "foreseen",
    [
        line("INFO", "uvicorn.error", "Application startup complete."),
        line("ERROR", "ctxmiddleware.redis", "Redis does not answer", "redis.exceptions.TimeoutError"),
        line("ERROR", "ctxmiddleware.redis", "Redis does not answer", "builtins.TimeoutError"),
        line("ERROR", "ctxmiddleware.redis", "Redis answers again"),
        line("WARNING", "ctxmiddleware.refusals", "refused with 503: the source is busy"),
        line("ERROR", "uvicorn.error", "Cancel 2 running task(s), timeout graceful shutdown exceeded"),
        '{"level": "ERROR", "logger": "ctxmid',
    ],
)
def test_a_logged_fault_of_redis_or_of_the_source_is_foreseen(foreseen: str) -> None:
    """They are what the run makes happen; so is half a line of a process that was killed."""
    assert unhandled(foreseen) == []


@pytest.mark.parametrize(
    "unforeseen",
    [
        line("INFO", "ctxmiddleware.resolver", "user7@example.org was invalidated"),
        "a warning of nobody's about eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6ImEifQ.c2lnbmF0dXJl",
        line("ERROR", "ctxmiddleware.redis", "Redis does not answer", "builtins.TypeError"),
        line("ERROR", "ctxmiddleware.refusals", "refused with 500", "ctxmiddleware.errors.SourceError"),
        line("ERROR", "ctxmiddleware.x", "group", "builtins.ExceptionGroup", "builtins.TimeoutError"),
        line("ERROR", "uvicorn.error", "Exception in ASGI application", "builtins.OSError"),
        line("ERROR", "asyncio", "Task exception was never retrieved", "redis.exceptions.ConnectionError"),
        line("ERROR", "asyncio", "Unclosed connection"),
        line("WARNING", "py.warnings", "RuntimeWarning: coroutine 'f' was never awaited"),
        "Traceback (most recent call last):",
    ],
)
def test_every_other_error_is_told(unforeseen: str) -> None:
    """Other exceptions, errors of the server's and of asyncio's own, warnings, and what went past the logging."""
    assert len(unhandled(f"{line('INFO', 'a', 'b')}\n{unforeseen}\n")) == 1


def test_what_there_is_more_of_is_a_leak() -> None:
    """Tasks by their kind, sockets by where they lead, what servers hold; fewer of one kind make up for nothing."""
    level = Level(Counter(probe=1, lane=2), redis=5, source=1, others=3)
    more = Level(Counter(probe=3, lane=1), redis=4, source=2, others=5)
    before = Held((level, level), valkey=8, front=2)
    found = leaks(before, Held((level, more), valkey=9, front=0))
    assert (found.tasks, found.connections) == (2, 4)
    assert "instance 1: 2 more tasks of probe" in found.told
    assert "Valkey: clients: 1 more" in found.told
    assert leaks(before, before) == Leaks()


def test_who_confirmed_is_read_from_a_report() -> None:
    """Processes are known by their number."""
    assert named([{"instance": "host:12:a", "ms": 1.0}, {"instance": "a:b:345:c", "ms": 2.0}]) == {12, 345}
    assert named([]) == frozenset()


def test_what_may_lag_is_read_from_a_report() -> None:
    """Each silent process with its own bound, the longer of two names, and the rest with that of unlisted ones."""
    silent = [{"instance": "h:12:a", "stops_within": 1.5}, {"instance": "h:12:b", "stops_within": 4.0}]
    silent.append({"instance": "h:13:c", "stops_within": 0.5})
    report = {"confirmed": [{"instance": "h:11:a", "ms": 0.0}], "silent": silent, "unlisted_stop_within": 5.0}
    read = reported(report, {3: 7}, 10.0)
    assert (read.versions, read.returned_at) == ({3: 7}, 10.0)
    assert [read.bound(pid) for pid in (11, 12, 13, 14)] == [0.0, 4.0, 0.5, 5.0]
    assert reported({**report, "unlisted_stop_within": None}, {3: 7}, 10.0).bound(14) == 0.0


def test_answers_that_lag_are_counted_beside_those_beyond_the_report() -> None:
    """They are no fault, and are printed all the same."""
    tally = Tally()
    tally.verdicts.update([Verdict.LAGGING, Verdict.LAGGING, Verdict.STALE])
    report = Report(1, 2.0, tally, (), Leaks(), ())
    assert report.is_clean
    assert report.rows()[0]["lagged, as reported"] == 3


def test_a_report_says_by_its_exit_code_whether_all_is_nought() -> None:
    """One wrong answer is enough, and it is told with what happened before it."""
    tally = Tally()
    report = Report(1, 2.0, tally, (), Leaks(), ())
    assert report.is_clean
    assert report.rows()[0]["exit code"] == 0
    tally.happened("FLUSHALL (0) begins")
    told = Told(tally.began_at + 1, 9, Standing.ACTIVE, 1, facts(2))
    tally.judged(Verdict.TOO_OLD, Asked(2, 0, tally.began_at), told, newest=4)
    assert report.faults["answers beyond the report of an invalidation"] == 1
    assert report.faults["other answers that must not be"] == 0
    assert report.rows()[0]["exit code"] == 1
    assert "the newest being v4" in report.evidence[0]
    assert "FLUSHALL (0) begins" in report.evidence[0]
