"""Whether a wrong command line is told before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from examples.demo.options import parse
from examples.demo.report import JsonFile


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--json", "/nowhere/at/all.json"], "cannot write"),
        (["--json", "/"], "cannot write"),
        (["--requests", "many"], "not a whole number"),
        (["--requests", "-5"], "not a whole number"),
        (["--seconds", "nan"], "not a number"),
        (["--wan-ms", "-1"], "not a number"),
        (["--port", "70000"], "not a whole number"),
        (["--without", "everything"], "invalid choice"),
        (["--employees", "100", "--online", "60"], "half of the employees"),
        (["--nonsense"], "unrecognized"),
    ],
)
def test_a_wrong_command_line(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is named in a line, with status 2."""
    with pytest.raises(SystemExit, match="2"):
        parse(words)
    assert complaint in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that somebody has is refused at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit, match="2"):
        parse(["--port", str(taken.getsockname()[1])])
    assert "is taken" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every option and says what is the default."""
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    said = capsys.readouterr().out
    assert all(option in said for option in ("--exit", "--json", "--port", "--requests", "--wan-ms", "(default: 40"))


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Asking for a file makes none yet; writing replaces what was there; nothing else is left beside it."""
    path = tmp_path / "demo.json"
    file = JsonFile(path)
    assert not path.exists()
    path.write_text("earlier")
    with pytest.raises(TypeError):
        file.write(object())
    assert path.read_text() == "earlier"
    file.write({"a": 1})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]
