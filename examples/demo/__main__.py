"""The command `python -m examples.demo`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from . import leaving


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return the process's exit status.

    Args:
        argv: the command line; None takes the process's own.
    """
    # First of all: importing the rest takes a moment, in which Ctrl-C is pressed too.
    leaving.by_signal()
    try:
        return _main(argv)
    except KeyboardInterrupt:
        print("Stopped before anything was started.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads along has left. Python would say so once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(argv: Sequence[str] | None) -> int:
    try:
        from rich.console import Console

        from . import options, run, screen
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: python -m pip install -e '.[demo]'", file=sys.stderr)
        return 2
    # Whatever the terminal's encoding lacks becomes a question mark and no traceback.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # the process's own streams are text files
    return run.run(options.parse(argv), screen.Screen(Console(highlight=False)))


if __name__ == "__main__":
    sys.exit(main())
