"""Whether the recipe for Django invalidates after the COMMIT and not before, on a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from examples.servers import Postgres

from .recipe_world import database


def test_django_invalidates_after_the_outermost_commit(postgres: Postgres, redis_url: str) -> None:
    """In a WSGI server's threads and in those of ASGI; a process of its own, for Django's settings are set once."""
    with database(postgres, "recipes_django") as dsn:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.examples.django_process", dsn, redis_url],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "at first": ["old"] * 2,
        "wsgi": ["by WSGI"] * 2,
        "asgi": ["by ASGI"] * 2,
        "within": ["by ASGI"] * 2,
        "at length": ["at length"] * 2,
        # What the README warns of: the request in between has loaded the old row, which is kept.
        "too early, within": ["at length"] * 2,
        "too early": ["at length"] * 2,
        # Neither a rollback, nor a savepoint, nor the rollback of one invalidates; the COMMIT does, once.
        "hooks": [0, 0, 0, 1, 0],
        "hooks, then": ["by hooks"] * 2,
        "unknown": [None] * 2,
        "created": ["created"] * 2,
    }
