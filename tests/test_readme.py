"""The README says what is true: its examples run, its table is the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from ctxmiddleware.settings import rules
from examples.servers.programs import ALL

from .shown import README, blocks


def shown(default: object) -> str:
    """Return a default as the table shows it."""
    if default is None or default == ():
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_table_of_settings_is_the_code_s() -> None:
    """Each variable has one line with its default, what is allowed and what it is."""
    for rule, default in rules():
        line = f"| `{rule.variable}` | {shown(default)} | {rule.allowed} | {rule.meaning} |"
        assert line in README, f"the README lacks: {line}"


def test_every_python_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a newcomer copies works as it stands, in an environment that has what the README says is needed."""
    monkeypatch.setenv("SUPABASE_URL", "https://project.example")
    monkeypatch.setenv("SUPABASE_KEY", "sb_secret_example")
    ran = []
    for block in blocks("python"):
        names: dict[str, Any] = {}
        exec(compile(block, "README.md", "exec"), names)
        ran.append(names)
    assert any(isinstance(names.get("app"), Starlette) for names in ran)
    assert all("plugin" in names for names in ran)


def test_the_two_commands_are_there_once_each() -> None:
    """The README opens with the two commands, and the sessions they name exist."""
    noxfile = (Path(__file__).parents[1] / "noxfile.py").read_text(encoding="utf-8")
    commands = [block.strip() for block in blocks("sh")][:2]
    assert commands == [f"python3 -m pip install -q nox && python3 -m nox -s {name}" for name in ("demo", "tests")]
    assert all(f"def {name}(" in noxfile for name in ("demo", "tests"))


def test_it_claims_the_servers_that_are_run() -> None:
    """Each there is a package of is named by its version, and so many others are said to be run by hand."""
    listed, _, by_hand = README.partition("Run by the tests:")[2].partition("Run by hand")
    assert all(word in listed for program in ALL for word in program.name.split())
    assert len(re.findall(r"[0-9]+\.[0-9]+\.[0-9]+", listed)) == len(ALL)
    assert "REDIS_PROGRAM" in by_hand
