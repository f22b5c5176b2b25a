"""The chaos at length: `python -m tests.chaos --seconds 600 --seed 7`."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from rich.console import Console

from .run import Options, run


def main() -> int:
    """Run it, print what was found, and return 1 where something must not be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Four processes over real servers that fail at random; every answer is checked. Ends by itself.",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things fail (60)")
    parser.add_argument("--seed", type=int, help="decides what fails when (drawn where none is given)")
    parser.add_argument("--rate", type=float, default=Options.per_second, help="requests a second at most (200)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    console = Console(width=140)
    console.print(f"Four processes, {given.seconds:g} s of faults, seed {seed} ...")
    report = run(Options(seconds=given.seconds, seed=seed, per_second=given.rate))
    report.show(console)
    if given.json is not None:
        given.json.write_text(json.dumps(report.figures(), indent=2), encoding="utf-8")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
