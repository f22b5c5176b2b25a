"""Which clients an address stands for: of one server, or of the master that sentinels name."""

from __future__ import annotations

from .connection import Admit
from .driver import Client, RedisOptions, connect
from .sentinel import Sentinels
from .target import Kind, Target


def opened(target: Target, options: RedisOptions, admit: Admit) -> tuple[Client, Client]:
    """Return two clients that connect when they are first used: with a pool, and with one connection.

    Args:
        target: where.
        options: timeouts and sizes.
        admit: called with each new connection before its first command.
    """
    locate = Sentinels(target, options).master if target.kind is Kind.SENTINEL else None
    pool = connect(target.url, options, admit, locate=locate)
    return pool, connect(target.url, options, admit, alone=True, locate=locate)
