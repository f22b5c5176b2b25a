"""A pytest plugin: which wrapper each app given to TestClient goes into, and what became of each test."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.testclient import TestClient, _is_asgi3, _WrapASGI2
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import ContextPlugin, Identity, UserContext, UserContextMiddleware
from ctxmiddleware.model import Employee
from ctxmiddleware.testing import StaticSource

Wrap = Callable[[ASGIApp], ASGIApp]


def _context(email: str, *, is_active: bool = True) -> UserContext:
    return UserContext(email, Employee(1, email, "Somebody", None, "rep", is_active), (), (), ())


_KNOWN: Final = "known@example.com"
_GONE: Final = "gone@example.com"
_CONTEXTS: Final = {_KNOWN: _context(_KNOWN), _GONE: _context(_GONE, is_active=False)}
# Who asks, request after request; None is an anonymous request, and the stranger is nobody the source knows.
_ASKING: Final = (_KNOWN, None, "stranger@example.com", _KNOWN, _GONE)


class NoOp:
    """The least a middleware can be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self.app(scope, receive, send)


def _noop(seen: Counter[str]) -> Wrap:
    return NoOp


def _anonymous(seen: Counter[str]) -> Wrap:
    """All apps share one plugin, which identifies nobody."""

    def identify(scope: Scope) -> None:
        seen[scope["type"]] += 1

    plugin: ContextPlugin[UserContext] = ContextPlugin(source=StaticSource(_CONTEXTS), identify=identify)
    return lambda app: UserContextMiddleware(app, plugin=plugin)


def _identified(seen: Counter[str]) -> Wrap:
    """Each app has a plugin of its own with an empty cache, and one request after the other is somebody else's."""

    def wrap(app: ASGIApp) -> ASGIApp:
        asking = itertools.cycle(_ASKING)

        async def identify(scope: Scope) -> Identity | None:
            seen[scope["type"]] += 1
            email = next(asking)
            return None if email is None else Identity(email)

        return UserContextMiddleware(app, plugin=ContextPlugin(source=StaticSource(_CONTEXTS), identify=identify))

    return wrap


_WRAPPERS: Final = {"noop": _noop, "anonymous": _anonymous, "identified": _identified}


class WrappedApps:
    """Wraps every app and writes down what became of each test.

    Args:
        wrapper: the wrapper's name.
        report: the file to write.
    """

    def __init__(self, wrapper: str, report: Path) -> None:
        self._seen: Counter[str] = Counter()
        self._wrap = _WRAPPERS[wrapper](self._seen)
        self._report = report
        self._apps = 0
        self._outcomes: dict[str, str] = {}
        self._details: dict[str, str] = {}

    def pytest_sessionstart(self) -> None:
        """Let TestClient wrap each app it is given."""
        original = TestClient.__init__

        @functools.wraps(original)
        def wrapping(test_client: TestClient, /, app: Any, *args: Any, **options: Any) -> None:
            self._apps += 1
            # The client brings older apps into the form of ASGI 3 itself, but only where it sees that they are old.
            app = app if _is_asgi3(app) else _WrapASGI2(app)
            original(test_client, self._wrap(app), *args, **options)

        setattr(TestClient, "__init__", wrapping)  # noqa: B010 - mypy takes no other signature in an assignment

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst that is said of a test."""
        if report.failed:
            self._outcomes[report.nodeid] = "failed"
            before = self._details.get(report.nodeid, "")
            self._details[report.nodeid] = f"{before}[{report.when}]\n{report.longreprtext}\n{report.caplog}"
        elif report.skipped:
            outcome = "xfailed" if hasattr(report, "wasxfail") else "skipped"
            self._outcomes.setdefault(report.nodeid, outcome)
        elif report.when == "call":
            self._outcomes.setdefault(report.nodeid, "passed")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the report."""
        found = {
            "exit_status": int(exitstatus),
            "apps": self._apps,
            "seen": self._seen,
            "outcomes": self._outcomes,
            "details": self._details,
        }
        self._report.write_text(json.dumps(found), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the wrapper's name and the report's place."""
    parser.addoption("--wrapper", choices=sorted(_WRAPPERS), required=True)
    parser.addoption("--wrapper-report", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    # Some tests name files by their place in the suite.
    os.chdir(config.rootpath)
    config.pluginmanager.register(WrappedApps(config.getoption("--wrapper"), config.getoption("--wrapper-report")))
