"""Where the tests of the installed Starlette come from: its source distribution, fetched once by pip."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import time
from importlib.metadata import version
from pathlib import Path

from examples.servers.kept import kept_folder
from examples.servers.process import Launch, inherited, run_to_end, temporary_folder

COMPONENT = "Starlette's test-suite"
_NEEDED = ("tests", "pyproject.toml")


def installed_version() -> str:
    """Return the version of the installed Starlette."""
    return version("starlette")


def suite() -> Path:
    """Return the folder with Starlette's tests and their settings, fetched at its first use and kept.

    Raises:
        ServerFailed: pip cannot fetch it.
    """
    folder = kept_folder() / f"starlette-{installed_version()}-tests"
    if not folder.exists():
        _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    name = f"starlette-{installed_version()}"
    with temporary_folder("starlette") as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        source = ["--no-deps", "--no-binary", ":all:", "--dest", str(temporary), f"starlette=={installed_version()}"]
        # pip builds the metadata in the place where temporary files go.
        launch = Launch([*pip, *source], inherited(TMPDIR=str(temporary)))
        run_to_end(COMPONENT, launch, temporary / "log", timeout=180)
        _unpack(temporary / f"{name}.tar.gz", temporary)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Others may fetch it at the same time, and nobody may see half of it.
        half = folder.with_name(f"{folder.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            shutil.copytree(temporary / name, half)
            if not folder.exists():
                half.rename(folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the tests only: the package beside them would be imported in place of the installed one."""
    with tarfile.open(archive) as tar:
        wanted = [member for member in tar if member.name.split("/")[1:2] and member.name.split("/")[1] in _NEEDED]
        tar.extractall(folder, wanted, filter="data")
