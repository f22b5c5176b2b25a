"""Interleavings at length: `python -m tests.commits --interleavings 10000 --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from dataclasses import replace

from .history import History
from .run import Options, Outcome, Progress, run, servers

_DELAY = 0.3


def main() -> int:
    """Run it, print what was found, and return 1 where an answer was too old."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.commits",
        description="Transactions, invalidations and reads in random order; every answer is checked.",
    )
    parser.add_argument("--interleavings", type=int, default=10_000, help="how many, each of a user of its own (10000)")
    parser.add_argument("--seed", type=int, help="decides what is done (drawn where none is given)")
    parser.add_argument("--at-once", type=int, default=Options.at_once, help="how many at the same time (100)")
    parser.add_argument(
        "--database", choices=["primary", "standby", "both"], default="both",
        help="read the primary alone, or a standby that lags, or one after the other (both)",
    )  # fmt: skip
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    options = Options(interleavings=given.interleavings, seed=seed, at_once=given.at_once)
    logging.disable(logging.CRITICAL)
    forms = {"primary": options, "standby": replace(options, delay=_DELAY)}
    chosen = forms if given.database == "both" else {given.database: forms[given.database]}
    return max([_run(name, each) for name, each in chosen.items()])


def _run(name: str, options: Options) -> int:
    delay = "" if options.delay is None else f", which applies a COMMIT after {options.delay:g} s"
    print(f"{options.interleavings} interleavings, seed {options.seed}, read from the {name}{delay} ...", flush=True)
    began = time.monotonic()
    with servers(options) as (valkey, primary, standby):
        progress = Progress(options.interleavings, lambda line: print(line, flush=True))
        outcome = asyncio.run(run(options, valkey, primary, standby, progress))
    _show(outcome, time.monotonic() - began)
    return 1 if outcome.counts["faults"] else 0


def _show(outcome: Outcome, seconds: float) -> None:
    for what, count in outcome.counts.items():
        print(f"{count:>9}  {what}")
    for user, history, faults in outcome.broken:
        print(f"\n{user}:", *faults, *_in_order(history), sep="\n  ")
    print(f"{outcome.counts['faults']} faults in {seconds:.1f} s", flush=True)


def _in_order(history: History) -> list[str]:
    """Return what happened, one line each, in milliseconds from the first of it."""
    spans = [
        *((each, "") for each in (*history.commits, *history.loads, *history.reads)),
        *((each, "invalidation") for each in history.invalidations),
        *((each.entry, "changing entry") for each in history.blocks),
        *((each.exit, "changing exit") for each in history.blocks),
    ]
    start = min(each.began for each, _ in spans)
    lines = []
    for each, name in sorted(spans, key=lambda pair: pair[0].began):
        more = {key: value for key, value in vars(each).items() if key not in ("began", "ended")}
        times = f"{1000 * (each.began - start):8.1f} to {1000 * (each.ended - start):8.1f} ms"
        lines.append(f"{times}  {name or type(each).__name__} {more or ''}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
