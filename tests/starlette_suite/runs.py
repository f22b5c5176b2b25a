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
_TIMEOUT = 300.0
# What would change the run behind our back: another's options, plugins and paths.
_FOREIGN = ("PYTEST_", "PYTHONPATH", "PYTHONWARNINGS", "COV_", "COVERAGE_")


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


def run_all() -> dict[str, Run]:
    """Run Starlette's tests with each wrapper, side by side, and return the runs by wrapper.

    Raises:
        ServerFailed: the tests cannot be fetched, or a run came to no end.
    """
    suite = sdist.suite()
    with ThreadPoolExecutor() as pool:
        return dict(zip((NOOP, *OURS), pool.map(lambda wrapper: _run(suite, wrapper), (NOOP, *OURS)), strict=True))


def _run(suite: Path, wrapper: str) -> Run:
    with temporary_folder("suite") as folder:
        report, log = folder / "report.json", folder / "log"
        child = Child(_launch(suite, wrapper, folder, report), log)
        try:
            child.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise ServerFailed(sdist.COMPONENT, f"{wrapper} took more than {_TIMEOUT:g} s", tail(log)) from None
        finally:
            child.kill()
        if not report.exists():
            raise ServerFailed(sdist.COMPONENT, f"{wrapper} ended without a report", tail(log))
        return msgspec.convert({"wrapper": wrapper, **msgspec.json.decode(report.read_bytes())}, Run)


def _launch(suite: Path, wrapper: str, folder: Path, report: Path) -> Launch:
    # The suite's folder and ours are both called tests: ours must not be found by that name, and the suite's is put in
    # front of the path by pytest itself.
    path = os.pathsep.join([*inside.__path__, str(Path(ctxmiddleware.__path__[0]).parent)])
    ours = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env = {name: value for name, value in inherited().items() if not name.startswith(_FOREIGN)}
    settings = ["--rootdir", str(suite), "-c", str(suite / "pyproject.toml"), "--basetemp", str(folder / "tests")]
    loaded = ["-p", "no:cacheprovider", "-p", "anyio.pytest_plugin", "-p", "wrapped_apps"]
    wrapped = ["--wrapper", wrapper, "--wrapper-report", str(report)]
    argv = [sys.executable, "-m", "pytest", "-q", "--no-header", *settings, *loaded, *wrapped, str(suite / "tests")]
    return Launch(argv, env | ours | {"TMPDIR": str(folder)})
