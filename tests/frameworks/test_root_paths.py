"""Excluded paths of each framework behind each server that the README names, started with a root path."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx2
import pytest

from examples.servers.process import Launch, ServerProcess, inherited

from ..matrix import in_full
from ..people import ADA, as_user
from .routed import FRAMEWORKS, SECRET, WELL

ROOT: Final = Path(__file__).parent.parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
APP: Final = "tests.frameworks.routed:app"
PREFIX: Final = "/api"

SERVERS: dict[str, Callable[[str], list[str]]] = {
    "uvicorn": lambda port: ["--host", "127.0.0.1", "--port", port, "--root-path", PREFIX],
    "hypercorn": lambda port: ["--bind", f"127.0.0.1:{port}", "--root-path", PREFIX],
    "granian": lambda port: ["--interface", "asgi", "--host", "127.0.0.1", "--port", port, "--url-path-prefix", PREFIX],
    "daphne": lambda port: ["-b", "127.0.0.1", "-p", port, "--root-path", PREFIX],
}

# Servers pass these on differently; no framework may read them as below /health.
READ_TWICE: Final = (
    f"/health{PREFIX}/secret",
    f"{PREFIX}/health{PREFIX}/secret",
    f"{PREFIX}{PREFIX}/secret",
    f"{PREFIX}/health/..{PREFIX}/secret",
    f"{PREFIX}/health/%2e%2e/secret",
    "/health/%2Fapi/secret",
    f"{PREFIX}health{PREFIX}/secret",
    f"{PREFIX}/secret",
    "/secret",
)


def _pairs() -> list[object]:
    # Hypercorn, Granian and Daphne pass the same path and root path; what differs is which framework reads them.
    pushed = {("litestar", server) for server in SERVERS} | {(framework, "hypercorn") for framework in FRAMEWORKS}
    pairs = [(framework, server) for framework in FRAMEWORKS for server in SERVERS]
    return [pytest.param(*pair) if pair in pushed else in_full(*pair) for pair in pairs]


@pytest.mark.parametrize(("framework", "server"), _pairs())
def test_an_excluded_path_excludes_no_other_behind_a_root_path(framework: str, server: str, tmp_path: Path) -> None:
    """Whichever part of the path the framework reads, what is not below /health needs a context."""

    def launch(port: int) -> Launch:
        command = [sys.executable, "-m", server, *SERVERS[server](str(port)), APP]
        return Launch(command, inherited(PYTHONPATH=str(ROOT), FRAMEWORK=framework))

    def ask(port: int, path: str, user: str | None = None) -> httpx2.Response:
        try:
            return httpx2.get(f"http://127.0.0.1:{port}{path}", headers=as_user(user), timeout=30)
        except httpx2.TransportError as error:
            raise ConnectionError from error

    def ready(port: int) -> bool:
        return ask(port, "/").status_code > 0

    with ServerProcess(server, launch, ready, log=tmp_path / "log") as process:
        port = process.port
        # uvicorn puts the root path before the path that was requested, the others leave it to the proxy.
        before = "" if server == "uvicorn" else PREFIX
        assert ask(port, f"{before}/secret", ADA).text == SECRET
        for path in ("/health", "/health/live"):
            answer = ask(port, f"{before}{path}")
            assert (answer.status_code, answer.text) == (200, WELL)
        for path in READ_TWICE:
            answer = ask(port, path)
            assert (answer.status_code in (400, 401, 404), SECRET in answer.text) == (True, False), path


def test_the_readme_names_each_pair() -> None:
    """What is in this test is what the README says is in the tests."""
    line = next(line for line in README.splitlines() if "with a root path" in line)
    assert all(name.lower() in line.lower() for name in (*FRAMEWORKS, *SERVERS))
