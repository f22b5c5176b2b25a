"""What the middleware breaks in Starlette's tests that a no-op wrapper does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .runs import NOOP, WHOLE, Extent, Run

_DETAIL = 4000
_OUTCOMES = ("passed", "failed", "skipped", "xfailed")
_KINDS = ("http", "websocket")
# pytest's own words for a run that came to its end.
_WHOLE = (0, 1)


def faults(runs: Mapping[str, Run], extent: Extent = WHOLE) -> list[str]:
    """Return everything that speaks against the middleware, or against the runs themselves."""
    noop = runs[NOOP]
    against = (fault for wrapper in extent.ours for fault in _against(noop, runs[wrapper], extent))
    return [*_doubts(noop, extent), *against]


def table(runs: Mapping[str, Run]) -> str:
    """Return the counts of all runs, side by side."""
    columns = list(runs.values())
    rows: dict[str, list[object]] = {"": [run.wrapper for run in columns]}
    rows |= {outcome: [run.counts[outcome] for run in columns] for outcome in _OUTCOMES}
    rows["apps wrapped"] = [run.apps for run in columns]
    rows |= {f"{kind} seen by ours": [run.seen.get(kind, 0) for run in columns] for kind in _KINDS}
    rows["failures beyond no-op"] = [len(run.failed - runs[NOOP].failed) for run in columns]
    return "\n".join(f"{name:22}" + "".join(f"{cell!s:>12}" for cell in cells) for name, cells in rows.items())


def _doubts(run: Run, extent: Extent) -> Iterator[str]:
    """Yield why a run proves nothing."""
    if run.exit_status not in _WHOLE:
        yield f"{run.wrapper}: pytest ended with status {run.exit_status}"
    if len(run.outcomes) < extent.fewest_tests:
        yield f"{run.wrapper}: only {len(run.outcomes)} tests were run, {extent.fewest_tests} are the least there are"
    if run.apps < extent.fewest_apps:
        yield f"{run.wrapper}: only {run.apps} apps were wrapped, {extent.fewest_apps} are the least there are"


def _against(noop: Run, ours: Run, extent: Extent) -> Iterator[str]:
    yield from _doubts(ours, extent)
    if ours.apps < noop.apps:
        yield f"{ours.wrapper}: {ours.apps} apps were wrapped, but {noop.apps} with the no-op"
    for kind in _KINDS:
        if not ours.seen.get(kind):
            yield f"{ours.wrapper}: the middleware never asked who anybody is on a scope of type {kind}"
    for test in sorted(ours.failed - noop.failed):
        yield f"{ours.wrapper}: {test} fails, and not with the no-op\n{ours.details.get(test, '')[-_DETAIL:]}"
    for test, outcome in noop.outcomes.items():
        if outcome == "passed" and ours.outcomes.get(test) not in ("passed", "failed"):
            yield f"{ours.wrapper}: {test} was {ours.outcomes.get(test, 'not run')}, but passes with the no-op"
