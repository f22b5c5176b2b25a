"""The benches by name: `nox -s bench`, `nox -s bench -- peers storm`, `python -m tests.bench --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos import bench as chaos

from . import eviction, flood, hit, hung_redis, mixup, peers, peers_fleet, sealing, storm

Rows = list[dict[str, object]]
Options = argparse.Namespace


def _peers() -> Rows:
    found = asyncio.run(peers.run())
    rows: Rows = [{"case": case, **outcomes} for case, outcomes in found.items()]
    together = {name: peers_fleet.loads(name) for name in peers_fleet.MADE}
    return [
        *rows,
        {"case": f"{peers_fleet.PROCESSES} processes x {peers_fleet.CALLERS} misses, one Redis", **together},
    ]


def _other(*command: str) -> Callable[[], Rows]:
    def run() -> Rows:
        done = subprocess.run([sys.executable, "-m", *command], check=False)
        return [{"command": " ".join(("python -m", *command)), "exit code": done.returncode}]

    return run


BENCHES: dict[str, tuple[str, Callable[[Options], Rows]]] = {
    "peers": ("what goes wrong elsewhere, side by side", lambda _: _peers()),
    "storm": ("5,000 users who miss together, on the real Supabase stack", lambda _: storm.run()),
    "hit": ("what one hit costs, as a ratio to a dict", lambda _: hit.run()),
    "eviction": ("hit rates where memory holds a tenth of the users", lambda _: eviction.run()),
    "sealing": ("what sealing adds to a context on its way to Redis and back", lambda _: sealing.run()),
    "redis": ("look-ups gathered and one by one", lambda _: _other("tests.bench.redis_reads")()),
    "machine": (
        "100,000 steps of the state machine",
        lambda _: _other("tests.cache.machine", "--steps", "100000")(),
    ),
    "chaos": (
        "four processes whose servers fail at random; every answer checked",
        lambda options: chaos.run(options.seconds),
    ),
    "commits": (
        "10,000 transactions with invalidations and reads in random order, with and without a standby that lags",
        lambda _: _other("tests.commits")(),
    ),
    "told": ("an invalidation, to the last of four processes", lambda _: chaos.told()),
    "fleet": ("four processes miss together, 250 times each", lambda _: chaos.misses()),
    "mixup": (
        "10,000 users through one app, a tenth cancelled; every answer compared with who asked",
        lambda options: mixup.run(options.requests),
    ),
    "flood": ("200,000 forged identities against 1,000 real users", lambda _: flood.run()),
    "hung": ("Redis hangs under three instances", lambda options: hung_redis.run(options.seconds)),
}


def main() -> int:
    """Run the benches that were asked for, and print a table of each."""
    parser = argparse.ArgumentParser(
        prog="nox -s bench --",
        description="Measures, on real servers it starts itself; ends by itself.",
        epilog="\n".join(f"  {name:8} {what}" for name, (what, _) in BENCHES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="BENCH", help=f"which: {', '.join(BENCHES)} (all of them)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long Redis hangs, and how long the chaos lasts (60)"
    )
    parser.add_argument("--requests", type=int, default=mixup.REQUESTS, help="of the mix-up (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    console, figures = Console(width=140), {}
    for name in options.names or BENCHES:
        what, run = BENCHES[name]
        console.print(f"[bold]{name}[/bold]: {what} ...")
        began = time.monotonic()
        figures[name] = run(options)
        console.print(_table(figures[name]))
        console.print(f"{time.monotonic() - began:.1f} s\n")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    failed = [row for rows in figures.values() for row in rows if row.get("exit code")]
    return 1 if failed else 0


def _table(rows: Rows) -> Table:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
