"""The machine at length: `python -m tests.cache.machine`; and what it finds where a guard is missing."""

from __future__ import annotations

import argparse
import logging
import sys
import time

import hypothesis.core
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from . import guards
from .machine import TOTAL, Machine

EXAMPLES = 40


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cache.machine", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["run", "guards"], default="run", help="run it, or without each guard"
    )
    parser.add_argument("--steps", type=int, default=100_000, help="callbacks and rules to run at least (100000)")
    parser.add_argument("--seed", type=int, default=1, help="what the order of everything comes from (1)")
    parser.add_argument("--quiet", action="store_true", help="say only what was found")
    options = parser.parse_args()
    if options.what == "guards":
        return guards.main(options.steps, options.seed)
    return _run(options.steps, options.seed, quiet=options.quiet)


def _run(steps: int, seed: int, *, quiet: bool) -> int:
    logging.disable(logging.CRITICAL)
    began, turn = time.monotonic(), 0
    while _done() < steps:
        try:
            _once(seed + turn)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            found = next((str(each) for each in _leaves(error)), repr(error))
            print(f"BROKEN after {_done()} steps (seed {seed + turn}): {found}", flush=True)
            return 1
        turn += 1
        if not quiet:
            print(f"{_done():>8} of {steps} steps, {time.monotonic() - began:5.1f} s, nothing broken", flush=True)
    if not quiet:
        for what, count in sorted(TOTAL.items()):
            print(f"{count:>9}  {what}")
        print(f"{_done()} steps, 0 violations")
    return 0


def _once(seed: int) -> None:
    # Without shrinking: the first thing that is found is told, and how soon.
    hypothesis.core.global_force_seed = seed  # type: ignore[assignment]  # declared by its first value, None
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
        _min_steps=30,
    )


def _done() -> int:
    return TOTAL["steps of the loop"] + TOTAL["rules"]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


if __name__ == "__main__":
    sys.exit(main())
