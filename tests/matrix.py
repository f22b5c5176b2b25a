"""Which cases each of the sessions runs: `nox -s coverage`, `nox -s tests` and `nox -s tests_full`.

A test that runs on several event loops, before several servers or with several seeds is several cases. Most faults show
in one of them; the others belong to `tests_full`, which leaves out nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, settings


class Cases(StrEnum):
    """How much of the matrix of event loops, servers, seeds and volumes is run."""

    COVERAGE = "coverage"
    PUSH = "push"
    FULL = "full"


# What differs between versions of PostgREST does not differ between event loops.
OLDER_DIALECT = "12"

MARKS = (
    "every_loop: sockets, threads or lifespans are the subject, so that `push` runs it on uvloop too",
    "trio_branches: the code has branches of its own for trio, so that `coverage` runs it there too",
    "full: only `tests_full` runs it",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--cases`, and the way to see what a session leaves out."""
    group = parser.getgroup("cases")
    group.addoption(
        "--cases",
        choices=[each.value for each in Cases],
        default=Cases.PUSH.value,
        help="which cases of each test: those that suffice for the coverage, those before each push (default), or all",
    )
    group.addoption(
        "--left-out",
        action="store_true",
        help="take the cases that --cases leaves out instead, for example with --collect-only",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and draw the same examples in each run unless all cases are run."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    # Before each push a failure is the change's, and never a new example's or the machine's; `tests_full` looks for new
    # examples.
    settings.register_profile(
        "ctxmiddleware",
        derandomize=cases_of(config) is not Cases.FULL,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("ctxmiddleware")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is not in the cases of this run; tests that are named one by one are run in all their cases."""
    if any("::" in argument for argument in config.args):
        return
    cases, wanted = cases_of(config), not config.getoption("--left-out")
    chosen = [item for item in items if is_in(cases, item) is wanted]
    config.hook.pytest_deselected(items=[item for item in items if is_in(cases, item) is not wanted])
    items[:] = chosen


def cases_of(config: pytest.Config) -> Cases:
    """Return how much is run."""
    return Cases(config.getoption("--cases"))


def is_in(cases: Cases, item: pytest.Item) -> bool:
    """Return whether a case belongs to so much of the matrix."""
    if cases is Cases.FULL:
        return True
    callspec = getattr(item, "callspec", None)
    loop = loop_of(callspec.params) if callspec else None
    if item.get_closest_marker("full"):
        return False
    if cases is Cases.COVERAGE:
        return loop in (None, "asyncio") or (loop == "trio" and item.get_closest_marker("trio_branches") is not None)
    if callspec and callspec.params.get("dialect") == OLDER_DIALECT and loop not in (None, "asyncio"):
        return False
    return loop != "uvloop" or item.get_closest_marker("every_loop") is not None


def loop_of(params: dict[str, Any]) -> str | None:
    """Return the event loop of a case, None where it has none."""
    match params.get("anyio_backend"):
        case None:
            return None
        case (str(name), {"use_uvloop": True}):
            return "uvloop" if name == "asyncio" else name
        case (str(name), _) | str(name):
            return name
        case other:
            raise ValueError(f"{other!r} is no event loop")


def some(values: Sequence[Any], count: int) -> list[Any]:
    """Return parameters of which only the first so many are run before each push."""
    return [value if number < count else in_full(value) for number, value in enumerate(values)]


def in_full(*values: Any, name: str | None = None) -> Any:
    """Return a parameter that only `tests_full` runs."""
    return pytest.param(*values, marks=pytest.mark.full, id=name)
