"""`python -m tests.starlette_suite`: what the middleware breaks in Starlette's own tests, which has to be nothing."""

from __future__ import annotations

import sys

from examples.servers import ServerFailed

from . import comparison, runs, sdist


def main() -> int:
    """Run the suite with each wrapper, tell what came of it, and return the exit status."""
    tell = sys.stdout.write
    tell(f"Starlette {sdist.installed_version()}: its own tests, with every app in a wrapper\n")
    try:
        found = runs.run_all()
    except ServerFailed as error:
        tell(f"{error}\n")
        return 2
    faults = comparison.faults(found)
    tell(f"{comparison.table(found)}\n\n")
    tell("\n".join(faults or ["Not one failure more than with the no-op."]) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
