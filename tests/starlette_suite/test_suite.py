"""Starlette's own tests notice nothing of our middleware around their apps."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from ..matrix import in_full
from .comparison import faults, table
from .runs import CORE, NOOP, WHOLE, Extent, Run, run_all

FEWEST_APPS = WHOLE.fewest_apps
TESTS = [f"tests/test_{number}.py::test" for number in range(WHOLE.fewest_tests + 1)]


@pytest.mark.parametrize("extent", [pytest.param(CORE, id="core"), in_full(WHOLE, name="whole")])
def test_starlettes_own_tests_fail_no_more_than_with_a_noop(extent: Extent) -> None:
    """With every app inside the middleware, whoever asks, not one test more fails than inside a no-op."""
    runs = run_all(extent)
    found = faults(runs, extent)
    if found:
        pytest.fail("\n".join([table(runs), *found]), pytrace=False)


def a_run(wrapper: str, outcomes: Mapping[int, str | None] = MappingProxyType({}), **fields: Any) -> Run:
    """Return a run in which every test passed but those with another outcome, or with None for not run at all."""
    ended = {test: outcomes.get(number, "passed") for number, test in enumerate(TESTS)}
    whole: dict[str, Any] = {"exit_status": 0, "apps": FEWEST_APPS, "seen": {"http": 1, "websocket": 1}, "details": {}}
    found = {test: outcome for test, outcome in ended.items() if outcome is not None}
    return Run(wrapper=wrapper, outcomes=found, **whole | fields)


def judged(noop: Run, identified: Run) -> list[str]:
    """Return the faults of a no-op run and of one of ours; the other one of ours is like the no-op's."""
    return faults({NOOP: noop, "anonymous": a_run("anonymous"), "identified": identified})


def test_runs_alike_are_no_fault() -> None:
    """Tests that pass everywhere, and tests that fail with the no-op, say nothing against the middleware."""
    assert judged(a_run(NOOP), a_run("identified")) == []
    assert judged(a_run(NOOP, {3: "failed"}), a_run("identified", {3: "failed"})) == []
    assert judged(a_run(NOOP, {3: "failed", 4: "skipped"}), a_run("identified")) == []


def test_a_failure_more_is_a_fault() -> None:
    """A test that fails with the middleware only is named, even where as many fail with the no-op."""
    details = {TESTS[4]: "what it said"}
    found = judged(a_run(NOOP, {3: "failed"}), a_run("identified", {4: "failed"}, details=details))
    assert found == ["identified: tests/test_4.py::test fails, and not with the no-op\nwhat it said"]


@pytest.mark.parametrize("outcome", [None, "skipped", "xfailed"])
def test_a_test_that_was_not_run_is_a_fault(outcome: str | None) -> None:
    """A test that passes with the no-op has to pass with the middleware, not only to be left out."""
    [found] = judged(a_run(NOOP), a_run("identified", {5: outcome}))
    assert found == f"identified: tests/test_5.py::test was {outcome or 'not run'}, but passes with the no-op"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"outcomes": {}}, "only 0 tests were run"),
        ({"apps": 0}, "only 0 apps were wrapped"),
        ({"apps": FEWEST_APPS}, f"{FEWEST_APPS} apps were wrapped, but {FEWEST_APPS + 1} with the no-op"),
        ({"seen": {"http": 1}}, "never asked who anybody is on a scope of type websocket"),
        ({"exit_status": 2}, "ended with status 2"),
    ],
)
def test_a_run_that_proves_nothing_is_a_fault(fields: dict[str, Any], told: str) -> None:
    """Runs that ended early, wrapped nothing or never reached the middleware are not taken as a pass."""
    noop = a_run(NOOP, apps=FEWEST_APPS + 1)
    ours = a_run("identified", apps=FEWEST_APPS + 1)
    broken = msgspec.structs.replace(ours, **fields)
    assert any(told in fault for fault in faults({NOOP: noop, "anonymous": ours, "identified": broken}))
    assert faults({NOOP: noop, "anonymous": ours, "identified": ours}) == []
