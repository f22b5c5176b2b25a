"""What the project does by command: `nox -s demo` shows it, `nox -s tests` proves it, `nox -s bench` measures it."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests"]
nox.options.error_on_external_run = True

# Servers are stopped in order and their folders removed: nox's half a second after Ctrl-C is too short for that.
PATIENT = {"interrupt_timeout": 30.0, "terminate_timeout": 15.0}


@nox.session
def demo(session: nox.Session) -> None:
    """Start the real servers, compare the example app without and with the middleware, and keep serving."""
    session.install("-q", "-e", ".[demo]")
    session.run("python", "-m", "examples.demo", *session.posargs, **PATIENT)


@nox.session
def tests(session: nox.Session) -> None:
    """Lint, types, and the whole suite with coverage, against real servers. Arguments go to pytest."""
    session.install("-q", "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    measured = () if session.posargs else ("--cov", "--cov-report=term-missing:skip-covered")
    # Two at a time, file by file: most of the time a test waits for a server.
    session.run("pytest", "-n", "2", "--dist", "loadscope", *measured, *session.posargs, **PATIENT)


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
