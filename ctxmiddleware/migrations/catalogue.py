"""Which SQL ships with the package, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from ..errors import ConfigurationError

_SUFFIX: Final = ".sql"


@dataclass(frozen=True)
class Script:
    """One shipped SQL file.

    Args:
        name: the file's name without its ending, as `sql show` takes it.
        title: what it is, in one sentence: its first line.
        text: the whole file, ready for an SQL editor.
    """

    name: str
    title: str
    text: str


def names() -> tuple[str, ...]:
    """Return the names of all shipped SQL files, sorted."""
    return tuple(sorted(_files()))


def script(name: str) -> Script:
    """Return one shipped SQL file.

    Args:
        name: one of `names()`, with or without its `.sql`.

    Raises:
        ConfigurationError: no such file ships; the message lists those that do.
    """
    files = _files()
    found = files.get(name.removesuffix(_SUFFIX))
    if found is None:
        raise ConfigurationError(
            f"no SQL named {name!r} ships with ctxmiddleware; there is: {', '.join(sorted(files))}"
        )
    text = found.read_text(encoding="utf-8")
    return Script(name.removesuffix(_SUFFIX), text.partition("\n")[0].removeprefix("-- "), text)


def read(name: str) -> str:
    """Return the text of one shipped SQL file.

    Args:
        name: one of `names()`, with or without its `.sql`.

    Raises:
        ConfigurationError: no such file ships; the message lists those that do.
    """
    return script(name).text


def _files() -> dict[str, Traversable]:
    folder = resources.files("ctxmiddleware.migrations")
    return {file.name.removesuffix(_SUFFIX): file for file in folder.iterdir() if file.name.endswith(_SUFFIX)}
