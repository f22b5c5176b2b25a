"""What is printed when the work is done: the table and what it means, and how to go on by hand; and the JSON file."""

from __future__ import annotations

import os
import platform
import secrets
import statistics
import textwrap
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich import box
from rich.table import Table

from ctxmiddleware import Employee, __version__

from .comparison import Measured, Pair

if TYPE_CHECKING:
    from .options import Options

_COLUMNS = ("requests", "db calls", "warehouse", "p50 ms", "p99 ms", "req/s", "hit rate")
_WIDTH = 79
_SERVED_WITH = ("starlette", "uvicorn", "uvloop", "httptools")


def machine() -> str:
    """Return what the figures are measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join([f"ctxmiddleware {__version__}", *filter(None, map(_installed, _SERVED_WITH))])
    return f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}, {packages}"


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def table(local: Pair, wan: Pair) -> Table:
    """Return both comparisons as rows; calls are those of one request."""
    # Within 80 columns, which is what a pipe is taken for.
    shown = Table(box=box.SIMPLE_HEAD, padding=0)
    shown.add_column("middleware", no_wrap=True)
    for column in _COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True, min_width=8)
    for label, pair in (("", local), ("WAN ", wan)):
        shown.add_row(f"{label}without", *_cells(pair.before))
        shown.add_row(f"{label}with", *_cells(pair.after), end_section=True, style="bold")
    return shown


def _cells(line: Measured) -> tuple[str, ...]:
    return (
        f"{line.requests:,}",
        f"{line.db_calls / line.requests:.3f}",
        f"{line.warehouse_calls / line.requests:.4f}",
        f"{line.p50_ms:,.1f}",
        f"{line.p99_ms:,.1f}",
        f"{line.rps:,.0f}",
        "-" if line.hit_rate is None else f"{line.hit_rate:.3f}",
    )


def explained(local: Pair, wan: Pair, options: Options, *, calls: int, commits: int) -> str:
    """Return what the table's figures are and where they come from.

    Args:
        local: the first comparison.
        wan: the second one.
        options: what was asked for.
        calls: database calls that the front counted, all in all.
        commits: transactions that PostgreSQL itself counted meanwhile.
    """
    lines = (
        (
            f"db calls and warehouse queries are per request, counted at the servers: {calls:,} calls at Supabase's "
            f"front, {commits:,} transactions by PostgreSQL's own count."
        ),
        (
            "hit rate is from the admin's /stats: contexts that came out of memory or Redis. Each comparison begins "
            f"with empty ones, and {options.online} people are online."
        ),
        *_first_requests(local),
        (
            f"There are {options.concurrency} requests at any moment; apps, servers and load share the cores. WAN adds "
            f"a round trip of {options.wan_ms:g} ms to every call of the database and the warehouse, for both apps; "
            "Valkey is where the app is. No other delay was added."
        ),
        f"p50 is {_times(local)} times lower with the middleware, {_times(wan)} times on the WAN.",
    )
    return "\n".join(textwrap.fill(line, _WIDTH) for line in lines)


def _first_requests(pair: Pair) -> list[str]:
    if pair.after.hit_rate is None or pair.after.hit_rate > 0.99:
        return []
    return ["p99 with the middleware is somebody's first request, which loads the context."]


def _times(pair: Pair) -> str:
    each = ", ".join(f"{ratio:.0f}" for ratio in pair.ratios)
    return f"{statistics.median(pair.ratios):.0f} (by round: {each})"


def invitation(url: str, samples: Sequence[tuple[Employee, str]], admin_token: str) -> str:
    """Return where the app is, who may sign in, and what to try."""
    person, token = samples[0]
    admin = f"{url}/api/admin/cache"
    lines = [f"The app with the middleware is at {url}; these tokens are good for 8 hours:", ""]
    for each, theirs in samples:
        lines += [f"  {each.email}, {each.job_title or each.role}:", f"  {theirs}", ""]
    return "\n".join(
        [
            *lines,
            "Try, in another terminal:",
            "",
            f'curl -i -H "Authorization: Bearer {token}" {url}/me',
            f'curl -s -H "Authorization: Bearer {admin_token}" {admin}/stats',
            f'curl -s -X POST -H "Authorization: Bearer {admin_token}" {admin}/invalidate/{person.email}',
            "",
            "Ctrl-C ends the demo.",
        ]
    )


def as_json(local: Pair, wan: Pair) -> dict[str, Any]:
    """Return both comparisons as programs read them."""
    plain: dict[str, Any] = msgspec.to_builtins(
        {"before": local.before, "after": local.after, "wan": {"before": wan.before, "after": wan.after}}
    )
    return plain


class JsonFile:
    """A file that is written whole or not at all.

    Args:
        path: where.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        # Found out now and not after a minute of work.
        self._put(b"", keep=False)

    def __str__(self) -> str:
        return str(self._path)

    def write(self, content: object) -> None:
        """Put an object there, in place of what was there."""
        self._put(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n", keep=True)

    def _put(self, content: bytes, *, keep: bool) -> None:
        half = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            half.write_bytes(content)
            if keep:
                half.replace(self._path)
        finally:
            half.unlink(missing_ok=True)
