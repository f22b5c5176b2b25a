"""What the command prints, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ctxmiddleware
from ctxmiddleware.cli import main
from ctxmiddleware.migrations import catalogue

from .measured import measured

COMMAND = [sys.executable, "-c", "from ctxmiddleware.cli import main; raise SystemExit(main())"]


def test_sql_list_names_each_file_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each file, its name first, so that `cut` and eyes find it."""
    assert main(["sql", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue.names())
    for line in lines:
        assert line.endswith(catalogue.script(line.split()[0]).title)


@pytest.mark.parametrize("name", catalogue.names())
def test_sql_show_prints_exactly_the_file(name: str) -> None:
    """What arrives in a pipe is the shipped file, to the byte, and nothing is said beside it."""
    done = subprocess.run([*COMMAND, "sql", "show", name], capture_output=True, check=True, timeout=60)
    assert done.stdout == (Path(catalogue.__file__).parent / f"{name}.sql").read_bytes()
    assert done.stderr == b""


def test_an_unknown_name_ends_with_2_and_the_names_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name prints nothing that could reach psql, and one line on stderr that says what there is."""
    assert main(["sql", "show", "0002_nope"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ctxmiddleware: no SQL named '0002_nope'")
    assert err.count("\n") == 1
    assert all(name in err for name in catalogue.names())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--help"], ["sql", "the SQL that makes a miss one call"]),
        (["sql", "--help"], ["list", "show"]),
        (["sql", "list", "--help"], ["List the names"]),
        (["sql", "show", "--help"], ["SQL editor", "psql --single-transaction", *catalogue.names()]),
    ],
)
def test_help_says_what_there_is(
    words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each level's --help ends with 0 and names what the next word may be."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for text in expected:
        assert text in out


@pytest.mark.parametrize("words", [[], ["sql"], ["sql", "show"], ["sql", "drop"], ["nope"], ["sql", "list", "more"]])
def test_words_that_are_no_command_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A missing or unknown word is a usage line and a reason on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: ctxmiddleware")
    assert "error: " in err


@pytest.mark.parametrize("words", [["sql", "list"], ["sql", "show", "0001_user_context"]])
def test_a_closed_pipe_is_no_traceback(words: list[str]) -> None:
    """Where the reader is gone, as behind `| head -1`, the command ends without a word, as a shell expects it."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-c", measured(COMMAND[-1]), *words]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.parametrize("command", [COMMAND, [sys.executable, "-m", "ctxmiddleware"]])
def test_it_says_its_version_and_runs_as_a_module(command: list[str]) -> None:
    """As other commands do."""
    done = subprocess.run([*command, "--version"], capture_output=True, check=True, timeout=60, text=True)
    assert done.stdout == f"ctxmiddleware {ctxmiddleware.__version__}\n"


def test_as_a_module_it_ends_with_the_status_of_the_command() -> None:
    """A shell asks for it."""
    program = measured("import runpy\nrunpy.run_module('ctxmiddleware', run_name='__main__')")
    command = [sys.executable, "-c", program, "sql", "show", "0002_nope"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)
    assert (done.returncode, "0002_nope" in done.stderr) == (2, True)
