"""What the project does by command: `nox -s demo` shows it, `nox -s tests` proves it, `nox -s bench` measures it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests"]
nox.options.error_on_external_run = True

# Servers are stopped in order and their folders removed: nox's half a second after Ctrl-C is too short for that.
PATIENT = {"interrupt_timeout": 30.0, "terminate_timeout": 15.0}
# Two workers for each of two cores, because most of the time a test waits for a server; one that has none left takes
# over tests of another.
WORKERS = ("-n", "4", "--dist", "worksteal")


@nox.session
def demo(session: nox.Session) -> None:
    """Start the real servers, compare the example app without and with the middleware, and keep serving."""
    session.install("-q", "-e", ".[demo]")
    session.run("python", "-m", "examples.demo", *session.posargs, **PATIENT)


@nox.session
def tests(session: nox.Session) -> None:
    """Lint, types, and the tests of each push, against real servers. Arguments go to pytest."""
    _test(session, "push")


@nox.session
def tests_full(session: nox.Session) -> None:
    """Lint, types, and every test on every event loop, server and seed. Arguments go to pytest."""
    _test(session, "full")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which branches the tests take: one event loop suffices. Arguments go to pytest."""
    session.install("-q", "-e", ".[dev]")
    report = ("--cov", "--cov-report=term-missing:skip-covered")
    session.run("pytest", *WORKERS, "--cases", "coverage", *report, *session.posargs, **PATIENT)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure it beside its peers, on real servers. Arguments go to the bench: names of benches, --help."""
    session.install("-q", "-e", ".[bench]")
    session.run("python", "-m", "tests.bench", *session.posargs, **PATIENT)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz what comes from outside, guided by coverage. Arguments go to the fuzzer: names of targets, --seconds."""
    session.install("-q", "-e", ".[fuzz]")
    session.run("python", "-m", "tests.fuzz", *session.posargs, **PATIENT)


def _test(session: nox.Session, cases: str) -> None:
    session.install("-q", "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    with ThreadPoolExecutor() as beside:
        types = beside.submit(session.run, "mypy")
        session.run("pytest", *WORKERS, "--cases", cases, *session.posargs, **PATIENT)
        types.result()
