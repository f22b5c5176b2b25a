"""What is in the wheel that users install."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import ctxmiddleware

ROOT = Path(ctxmiddleware.__file__).parents[1]


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """The SQL, the type marker and every module are in it; tests and examples are not."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "ctxmiddleware"
    expected = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.suffix in (".py", ".sql", ".typed")}
    assert held == expected
    assert "ctxmiddleware/migrations/0001_user_context.sql" in held
    assert ctxmiddleware.__version__ in wheel.name
