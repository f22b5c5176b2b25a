"""The coverage-guided fuzzer: `nox -s fuzz`, `python -m tests.fuzz token --seconds 60`.

Each target runs in a process of its own, because the fuzzer ends the one it runs in.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .targets import SEEDS, TARGETS


def main() -> int:
    """Fuzz the targets that were asked for, one after the other, and return how many broke."""
    parser = argparse.ArgumentParser(
        prog="nox -s fuzz --",
        description="Fuzzes what comes from outside; ends by itself, with 1 where something broke.",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"which: {', '.join(TARGETS)} (all of them)")
    parser.add_argument("--seconds", type=int, default=20, help="for each of them (%(default)s)")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.inside, options.seconds, options.targets)
        return 0
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    broken = [name for name in options.targets or TARGETS if not _ran_well(name, options.seconds)]
    print(f"{len(broken)} broke" + (f": {', '.join(broken)}" if broken else ""))
    return 1 if broken else 0


def _ran_well(name: str, seconds: int) -> bool:
    """Fuzz one target, and say how often it was run and what was found."""
    print(f"{name}: {TARGETS[name].__doc__} ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS[name]):
            Path(folder, f"seed{number}").write_bytes(seed)
        command = [
            sys.executable,
            "-m",
            __package__ or "tests.fuzz",
            "--inside",
            name,
            "--seconds",
            f"{seconds}",
            folder,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=6 * seconds + 120, check=False
        )
    runs = re.findall(r"Done (\d+) runs|#(\d+)", done.stderr)
    count = max((int(each) for pair in runs for each in pair if each), default=0)
    if done.returncode == 0 and count:
        print(f"  {count:,} inputs, nobody let in, no exception but ours", flush=True)
        return True
    print(f"  BROKE after {count:,} inputs\n{done.stdout[-3000:]}{done.stderr[-3000:]}", flush=True)
    return False


def _fuzz(name: str, seconds: int, folders: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["ctxmiddleware"], enable_loader_override=False):
        import importlib

        # Imported before, for their names: loaded again, they tell the fuzzer where it has been.
        for module in [each for each in sys.modules if each.startswith("ctxmiddleware")]:
            del sys.modules[module]
        targets = importlib.reload(sys.modules["tests.fuzz.targets"])
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={folders[0]}/", *folders],
        targets.TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
