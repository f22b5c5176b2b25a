"""How Starlette's tests are run once for each wrapper, each run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

import ctxmiddleware
from examples.servers.child import Child, Launch, inherited
from examples.servers.process import ServerFailed, tail, temporary_folder

from . import inside, sdist

NOOP = "noop"
OURS = ("anonymous", "identified")
_TIMEOUT = 600.0
# What would change the run behind our back: another's options, plugins and paths.
_FOREIGN = ("PYTEST_", "PYTHONPATH", "PYTHONWARNINGS", "COV_", "COVERAGE_")


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """How much of Starlette's suite is run: `paths` below its tests, `words` as pytest's -k, and with which wrappers.

    Fewer tests or apps than `fewest_tests` and `fewest_apps` prove nothing.
    """

    paths: tuple[str, ...] = ("",)
    words: str = ""
    ours: tuple[str, ...] = OURS
    fewest_tests: int
    fewest_apps: int


# Starlette 1.10 has 1416 tests, and 1182 apps in them.
WHOLE = Extent(fewest_tests=900, fewest_apps=700)
# What a middleware meets: routes, requests, responses, streams, websockets, errors and other middlewares, on one loop.
CORE = Extent(
    paths=(
        "test_applications.py",
        "test_authentication.py",
        "test_background.py",
        "test_endpoints.py",
        "test_exceptions.py",
        "test_requests.py",
        "test_responses.py",
        "test_routing.py",
        "test_websockets.py",
        "middleware/test_base.py",
        "middleware/test_errors.py",
        "middleware/test_middleware.py",
        "middleware/test_session.py",
        "middleware/test_wsgi.py",
    ),
    words="asyncio",
    ours=("identified",),
    fewest_tests=250,
    fewest_apps=230,
)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What became of Starlette's tests with every app in one wrapper.

    `outcomes` are by test, `details` hold what the failed ones said, `apps` is how many apps were wrapped, and `seen`
    counts by scope type what the middleware was asked about.
    """

    wrapper: str
    exit_status: int
    apps: int
    seen: Mapping[str, int]
    outcomes: Mapping[str, str]
    details: Mapping[str, str]

    @property
    def counts(self) -> Counter[str]:
        """How many tests ended in which way."""
        return Counter(self.outcomes.values())

    @property
    def failed(self) -> frozenset[str]:
        """The tests that failed."""
        return frozenset(test for test, outcome in self.outcomes.items() if outcome == "failed")


def run_all(extent: Extent = WHOLE) -> dict[str, Run]:
    """Run Starlette's tests with each wrapper, side by side, and return the runs by wrapper.

    Args:
        extent: how many of the tests, and in which wrappers.

    Raises:
        ServerFailed: the tests cannot be fetched, or a run came to no end.
    """
    suite, wrappers = sdist.suite(), (NOOP, *extent.ours)
    with ThreadPoolExecutor() as pool:
        return dict(zip(wrappers, pool.map(lambda wrapper: _run(suite, wrapper, extent), wrappers), strict=True))


def _run(suite: Path, wrapper: str, extent: Extent) -> Run:
    with temporary_folder("suite") as folder:
        report, log = folder / "report.json", folder / "log"
        child = Child(_launch(suite, wrapper, extent, folder, report), log)
        try:
            child.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise ServerFailed(sdist.COMPONENT, f"{wrapper} took more than {_TIMEOUT:g} s", tail(log)) from None
        finally:
            child.kill()
        if not report.exists():
            raise ServerFailed(sdist.COMPONENT, f"{wrapper} ended without a report", tail(log))
        return msgspec.convert({"wrapper": wrapper, **msgspec.json.decode(report.read_bytes())}, Run)


def _launch(suite: Path, wrapper: str, extent: Extent, folder: Path, report: Path) -> Launch:
    # The suite's folder and ours are both called tests: ours must not be found by that name, and the suite's is put in
    # front of the path by pytest itself.
    path = os.pathsep.join([*inside.__path__, str(Path(ctxmiddleware.__path__[0]).parent)])
    ours = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env = {name: value for name, value in inherited().items() if not name.startswith(_FOREIGN)}
    settings = ["--rootdir", str(suite), "-c", str(suite / "pyproject.toml"), "--basetemp", str(folder / "tests")]
    loaded = ["-p", "no:cacheprovider", "-p", "anyio.pytest_plugin", "-p", "wrapped_apps"]
    wrapped = ["--wrapper", wrapper, "--wrapper-report", str(report)]
    chosen = ["-k", extent.words, *(str(suite / "tests" / path) for path in extent.paths)]
    argv = [sys.executable, "-m", "pytest", "-q", "--no-header", *settings, *loaded, *wrapped, *chosen]
    return Launch(argv, env | ours | {"TMPDIR": str(folder)})
