"""The coverage of the processes that a test starts: measured where that of this one is."""

from __future__ import annotations

from pathlib import Path

from coverage import Coverage

_ROOT = Path(__file__).parents[1]


def measured(program: str) -> str:
    """Return a program for `python -c` that measures its own coverage if that of this process is measured."""
    here = Coverage.current()
    if here is None:
        return program
    data, options = str(_ROOT / str(here.config.data_file)), str(_ROOT / "pyproject.toml")
    lines = (
        "import atexit",
        "from coverage import Coverage",
        f"measured = Coverage({data!r}, data_suffix=True, config_file={options!r})",
        "measured.start()",
        # Before the package is imported, so that what the package does at the end is measured too.
        "atexit.register(measured.save)",
    )
    return "\n".join((*lines, program))


def save_in_child() -> None:
    """Save what a forked process has measured, which does not end as others do."""
    here = Coverage.current()
    if here is not None:
        here.save()
