"""The plugin for pytest, in test runs of their own over an app as users write it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ctxmiddleware import ConfigurationError, ContextPlugin, UserContextMiddleware

from .asgi import no_lifespan
from .measured import measured
from .shown import blocks

ROOT = Path(__file__).parents[1]
PLUGIN = ("-p", "ctxmiddleware.pytest_plugin")
PYTEST = "import sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))"

APP = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from ctxmiddleware import ContextPlugin, get_user_context

async def me(request):
    return JSONResponse(get_user_context(request).email)

plugin = ContextPlugin.from_env()
app = Starlette(routes=[Route("/me", me)])
plugin.install(app, required=True)
"""

TESTS = """
import anyio, httpx2, pytest
from datetime import date
from starlette.testclient import TestClient
from ctxmiddleware import Employee, UserContext
from app import app, plugin

ada = UserContext("ada@example.com", Employee(1, "ada@example.com", "Ada", None, "admin", True), (), (), ())

def test_the_fixture(override_user_context):
    assert TestClient(app).get("/me").status_code == 401
    override_user_context(ada)
    assert TestClient(app).get("/me").json() == "ada@example.com"

def test_it_has_ended_with_its_test():
    assert TestClient(app).get("/me").status_code == 401

@pytest.fixture
def signed_in(override_user_context):
    override_user_context(ada)

@pytest.mark.anyio
async def test_in_an_event_loop(signed_in):
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get("/me")).json() == "ada@example.com"

@pytest.mark.anyio
async def test_called_in_an_event_loop(override_user_context):
    override_user_context(ada)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get("/me")).json() == "ada@example.com"

@pytest.mark.anyio
async def test_that_one_has_ended_too():
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get("/me")).status_code == 401

def test_a_user_who_is_identified_has_no_source(caplog):
    with pytest.raises(Exception, match="plugin.override"):
        anyio.run(plugin.resolve, "ada@example.com")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an app whose plugin is made when it is imported, and its tests."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "test_app.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return tmp_path


def run(project: Path, program: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a program in the project, with an environment that names no source."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{project}", **variables}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def pytest_run(project: Path, *options: str, program: str = PYTEST, **variables: str) -> tuple[int, str]:
    """Run pytest in the project, as if the package had no entry point but what the options load."""
    return run(project, program, "-q", "-p", "no:cacheprovider", "-p", "no:ctxmiddleware", *options, **variables)


def test_an_app_made_from_the_environment_is_tested_without_variables(project: Path) -> None:
    """It is imported, its requests have the contexts they are given, and an identified user has none."""
    code, told = pytest_run(project, *PLUGIN, program=measured(PYTEST))
    assert code == 0, told


def test_the_readmes_tests_pass(project: Path) -> None:
    """As a user copies them, in an environment without variables."""
    shown = [block for block in blocks("python") if "def test_" in block]
    for number, block in enumerate(shown):
        (project / f"test_shown_{number}.py").write_text(block)
    code, told = pytest_run(project, *PLUGIN, "-k", "test_me")
    assert (code, "2 passed" in told) == (0, True), told


def test_a_conftest_may_import_the_app(project: Path) -> None:
    """The plugin is in force before it is imported."""
    (project / "conftest.py").write_text("from app import app\n")
    code, told = pytest_run(project, *PLUGIN)
    assert code == 0, told


def test_a_run_inside_a_run_leaves_it_in_force(project: Path) -> None:
    """As tests of pytest's own plugins have them."""
    (project / "test_first.py").write_text(
        "import sys, pytest\n"
        "def test_inner(tmp_path):\n"
        "    (tmp_path / 'test_it.py').write_text('def test_it(): pass')\n"
        "    options = ['-q', '-p', 'no:cacheprovider', '-p', 'no:ctxmiddleware', '-c', '/dev/null']\n"
        "    options += ['-p', 'ctxmiddleware.pytest_plugin']\n"
        "    assert pytest.main([*options, '--rootdir', str(tmp_path), str(tmp_path)]) == 0\n"
        "    import app\n"
    )
    code, told = pytest_run(project, *PLUGIN, "test_first.py")
    assert code == 0, told


def test_without_the_plugin_it_fails_at_import_as_before(project: Path) -> None:
    """The message names the variables."""
    code, told = pytest_run(project)
    assert code != 0
    assert "SUPABASE_URL is not set" in told


@pytest.mark.parametrize(
    "variables",
    [{"SUPABASE_URL": "https://x.example"}, {"SUPABASE_KEY": "sb_secret_x"}, {"CTX_TTL": "soon"}],
    ids=["only the address", "only the key", "a bad value"],
)
def test_what_is_set_must_be_right_in_a_test_run_too(project: Path, variables: dict[str, str]) -> None:
    """Half of the settings, or a bad one, is a mistake and no test run without any."""
    code, told = pytest_run(project, *PLUGIN, **variables)
    assert code != 0
    assert "ConfigurationError" in told


@pytest.mark.parametrize("code", ["import app", "import ctxmiddleware.pytest_plugin, app"])
def test_in_a_process_without_pytest_it_fails_as_before(project: Path, code: str) -> None:
    """Also where the plugin's module is imported, and for the processes that a test starts."""
    status, told = run(project, code)
    assert status != 0
    assert "SUPABASE_URL is not set" in told


def test_in_this_run_the_plugin_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of what is refused see what an app sees outside of test runs."""
    for variable in ("SUPABASE_URL", "SUPABASE_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match="SUPABASE_URL"):
        ContextPlugin.from_env()
    assert UserContextMiddleware(no_lifespan) is not None


def test_pytest_finds_it_by_its_entry_point() -> None:
    """The package declares it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert declared["pytest11"] == {"ctxmiddleware": "ctxmiddleware.pytest_plugin"}


@pytest.mark.parametrize("fault", ["conftest", "option"])
def test_a_run_that_was_never_configured_ends(fault: str, tmp_path: Path) -> None:
    """In the process that began it `from_env()` needs its variables again."""
    if fault == "conftest":
        (tmp_path / "conftest.py").write_text("raise ImportError\n")
    arguments = [*PLUGIN, *(["--no-such-option"] if fault == "option" else []), str(tmp_path)]
    program = (
        f"import pytest\npytest.main({arguments!r})\n"
        "from ctxmiddleware import ConfigurationError, ContextPlugin\n"
        "try:\n    ContextPlugin.from_env()\nexcept ConfigurationError:\n    print('refused')\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "CTX_"))}
    run = subprocess.run(
        [sys.executable, "-c", measured(program)],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.stdout.splitlines()[-1:] == ["refused"], run.stdout + run.stderr
