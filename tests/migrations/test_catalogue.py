"""What the catalogue says about the files that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxmiddleware.errors import ConfigurationError
from ctxmiddleware.migrations import catalogue

FOLDER = Path(catalogue.__file__).parent


def test_names_are_the_files_that_ship() -> None:
    """Each SQL file beside the catalogue has its name listed, and nothing else has."""
    assert catalogue.names() == ("0001_user_context", "0001_user_context.down", "reference_schema")
    assert {f"{name}.sql" for name in catalogue.names()} == {path.name for path in FOLDER.glob("*.sql")}


@pytest.mark.parametrize("name", catalogue.names())
def test_read_returns_the_whole_file(name: str) -> None:
    """The text is the file's, to the byte, whether the name carries its ending or not."""
    shipped = (FOLDER / f"{name}.sql").read_bytes()
    assert catalogue.read(name).encode() == shipped
    assert catalogue.read(f"{name}.sql").encode() == shipped


@pytest.mark.parametrize("name", catalogue.names())
def test_each_file_says_what_it_is_and_how_to_undo_it(name: str) -> None:
    """A file is plain ASCII, so that any console prints it, and opens with what it does, how to apply and to undo."""
    script = catalogue.script(name)
    assert script.name == name
    assert script.title.endswith(".")
    assert script.text.startswith(f"-- {script.title}\n")
    assert script.text.isascii()
    assert "\n-- Apply: " in script.text
    assert "\n-- Undo: " in script.text


@pytest.mark.parametrize("name", ["", "nope", "../errors", "catalogue", "0001_user_context.sql.sql"])
def test_an_unknown_name_is_an_error_that_lists_what_there_is(name: str) -> None:
    """Whatever is not a shipped file is refused by a message with the names that would work."""
    with pytest.raises(ConfigurationError) as raised:
        catalogue.read(name)
    assert repr(name) in str(raised.value)
    for known in catalogue.names():
        assert known in str(raised.value)
