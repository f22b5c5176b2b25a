"""What can be said on the command line."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .report import JsonFile
from .rig import COMPONENTS

USUAL_PORT = 8000


@dataclass(frozen=True)
class Options:
    """The command line, checked.

    Args:
        exit: leave after the table.
        json: where the table is written as JSON, too.
        port: the app's port while it is served; None takes USUAL_PORT where it is free.
        employees: people in the company.
        online: how many of them send requests.
        requests: requests of one app in one comparison at most.
        seconds: time of one app in one comparison at most.
        concurrency: requests under way at any moment.
        wan_ms: milliseconds of the round trip in the second comparison.
        seed: which company and which traffic.
        without: components that are left out.
    """

    exit: bool
    json: JsonFile | None
    port: int | None
    employees: int
    online: int
    requests: int
    seconds: float
    concurrency: int
    wan_ms: float
    seed: int
    without: tuple[str, ...]


def parse(argv: Sequence[str] | None = None) -> Options:
    """Read the command line; what is wrong with it ends the process with status 2 and a line that says so."""
    parser = _parser()
    given = vars(parser.parse_args(argv))
    if given["online"] >= given["employees"] // 2:
        parser.error("--online: at most half of the employees can be online")
    given["without"] = tuple(given["without"])
    return Options(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Start real servers, drive the same traffic through an app without and with the middleware, "
        "print the comparison, and keep serving the app until Ctrl-C.",
        epilog="Nothing is left running and no file is left behind, whenever it is stopped.",
    )
    add = parser.add_argument
    add("--exit", action="store_true", help="leave after the table")
    add("--json", type=_json_file, metavar="FILE", help="write the table as JSON, too")
    add("--port", type=_port, help=f"serve the app there (default: {USUAL_PORT}, or any where that is taken)")
    add("--requests", type=_whole(100), default=20_000, metavar="N", help=_with_default("requests of one app at most"))
    add("--seconds", type=_number(1), default=12.0, metavar="S", help=_with_default("time of one app at most"))
    add("--concurrency", type=_whole(1, 500), default=8, metavar="N", help=_with_default("requests at any moment"))
    add("--online", type=_whole(1), default=200, metavar="N", help=_with_default("people who send them"))
    add("--employees", type=_whole(20, 100_000), default=5000, metavar="N", help=_with_default("people in all"))
    add("--wan-ms", type=_number(0, 1000), default=40.0, metavar="MS", help=_with_default("round trip of the WAN row"))
    add("--seed", type=_whole(0), default=1, metavar="N", help=_with_default("another company, other traffic"))
    add(
        "--without",
        action="append",
        default=[],
        choices=list(COMPONENTS),
        help="leave a server out, as on a platform where it cannot run; may be repeated",
    )
    return parser


def _with_default(text: str) -> str:
    return f"{text} (default: %(default)s)"


def _whole(least: int, most: int = 10_000_000) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return value

    return read


def _number(least: float, most: float = 3600) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
        return value

    return read


def _port(text: str) -> int:
    port = _whole(1, 65535)(text)
    if not is_free(port):
        raise argparse.ArgumentTypeError(f"port {port} is taken, or not for everybody")
    return port


def is_free(port: int) -> bool:
    """Answer whether a port of the loopback interface can be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _json_file(text: str) -> JsonFile:
    try:
        return JsonFile(Path(text))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror or error}") from None
