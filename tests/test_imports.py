"""The house's rules of who may import whom, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import permutations
from pathlib import Path

import pytest

import ctxmiddleware

ROOT = Path(ctxmiddleware.__file__).parent
FACE = "ctxmiddleware"
WINGS = ("identity", "cache", "sources", "zones")
GROUND = (
    "model", "errors", "stats", "breaker", "address", "principal", "secret", "perloop", "shown", "faults", "bell",
    "forking", "borrowed", "network", "tracebacks", "collectable", "instance", "bounded", "project", "failure_log",
    "option",
    "context_types.difference", "context_types.fields", "context_types.schema", "context_types.pydantic_support",
)  # fmt: skip
# Each driver's one home; whatever else needs it goes through there.
HOMES = {
    "redis": {"ctxmiddleware.cache.redis.servers.connection", "ctxmiddleware.cache.redis.servers.driver"},
    "httpx2": {
        "ctxmiddleware.sources.transport",
        "ctxmiddleware.identity.jwt.document",
        "ctxmiddleware.remote",
    },
    "joserfc": {"ctxmiddleware.identity.jwt.keys"},
    "google": {"ctxmiddleware.zones.bigquery"},
    "cryptography": {"ctxmiddleware.cache.redis.seal"},
}
KNOWS_SETTINGS = {"ctxmiddleware.environment", "ctxmiddleware.wiring", "ctxmiddleware.cli"}
MOST_LINES = 300


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = (FACE, *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(name: str, path: Path) -> Iterator[str]:
    """Return what a module imports, anywhere in it, `TYPE_CHECKING` blocks and function bodies included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield submodule if submodule in modules() else source


def edges() -> dict[str, set[str]]:
    """Return, for each module, which modules of the package it imports."""
    known = modules()
    return {name: {other for other in imported(name, path) if other in known} for name, path in known.items()}


EDGES = edges()


def test_there_is_no_circle() -> None:
    """Imports form a ladder: everything can be read from the ground up."""
    order = list(TopologicalSorter(EDGES).static_order())
    assert order.index("ctxmiddleware.errors") < order.index("ctxmiddleware.plugin")


@pytest.mark.parametrize(("wing", "other"), list(permutations(WINGS, 2)))
def test_wings_do_not_know_each_other(wing: str, other: str) -> None:
    """Identity, cache, sources and zones can each be read, changed and tested without the other three."""
    inside = [name for name in EDGES if name.startswith(f"{FACE}.{wing}")]
    assert inside
    assert [(name, to) for name in inside for to in EDGES[name] if to.startswith(f"{FACE}.{other}")] == []


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_stands_on_nothing_of_ours_but_ground(name: str) -> None:
    """What everything stands on imports nothing that stands on it."""
    assert EDGES[f"{FACE}.{name}"] <= {f"{FACE}.{other}" for other in GROUND}


def test_nobody_inside_imports_the_face() -> None:
    """The face collects names for users; inside, a name is taken from where it lives."""
    assert [name for name, targets in EDGES.items() if FACE in targets] == []


def test_settings_are_known_to_three_files_only() -> None:
    """Every other part gets what it needs as arguments, never the whole settings."""
    assert {name for name, targets in EDGES.items() if f"{FACE}.settings" in targets} <= KNOWS_SETTINGS


@pytest.mark.parametrize(("driver", "home"), list(HOMES.items()))
def test_each_driver_has_one_home(driver: str, home: set[str]) -> None:
    """A driver's traps are handled in one place."""
    users = {name for name, path in modules().items() for each in imported(name, path) if each.split(".")[0] == driver}
    assert users == home


def test_the_cache_knows_no_users() -> None:
    """The cache keeps values under keys; what they mean is said elsewhere."""
    for name in EDGES:
        if name.startswith("ctxmiddleware.cache"):
            assert not EDGES[name] & {"ctxmiddleware.model", "ctxmiddleware.address", "ctxmiddleware.resolver"}


@pytest.mark.parametrize("name", list(EDGES))
def test_a_module_has_few_lines(name: str) -> None:
    """A module that grows longer is two."""
    assert len(modules()[name].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_importing_the_package_needs_no_extra_and_loads_no_late_driver() -> None:
    """Drivers of optional extras, and Redis where it is not used, cost nothing at import."""
    check = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'google', 'joserfc', 'prometheus_client', 'cryptography', 'trio'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import ctxmiddleware\n"
        "assert 'redis' not in sys.modules, 'redis is imported before anybody asked for it'\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", check], check=True, timeout=60)


def test_every_public_name_is_there_and_grouped_once() -> None:
    """`__all__` names what exists, each name once."""
    assert len(set(ctxmiddleware.__all__)) == len(ctxmiddleware.__all__)
    assert all(hasattr(ctxmiddleware, name) for name in ctxmiddleware.__all__)
