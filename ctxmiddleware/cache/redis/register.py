"""How an instance is registered in the list of instances that Redis keeps."""

from __future__ import annotations

import math

from .lua.channel import LISTED_MS


def entry_of(instance: str, longest_untold: float) -> bytes:
    """Return the entry of an instance, with the seconds for which it serves a value after a missed invalidation."""
    return f"{math.ceil(longest_untold * 1000)} {instance}".encode()


def registering(instance: str, longest_untold: float, of_all: float) -> tuple[bytes, int, int]:
    """Return the arguments by which an instance registers with a beat.

    Args:
        instance: its name.
        longest_untold: seconds for which it serves a value after an invalidation that it missed.
        of_all: the longest such time that it knows of any instance: restored where Redis has lost it.
    """
    return entry_of(instance, longest_untold), math.ceil(max(longest_untold, of_all) * 1000), LISTED_MS


def read_entry(entry: bytes) -> tuple[str, float]:
    """Return the name of a registered instance, and the seconds it serves a value after a missed invalidation.

    Raises:
        ValueError: it is no entry.
        OverflowError: neither.
    """
    longest_ms, _, instance = entry.decode(errors="replace").partition(" ")
    return instance, int(longest_ms) / 1000
