"""An announcement of an invalidation, as the channel's stream holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple


class News(NamedTuple):
    """One announcement: its place in the stream, the channel's incarnation and its number, and what it says."""

    place: bytes
    incarnation: bytes
    number: int
    kind: Literal["intent", "done"]
    digest: bytes | None
    generation: bytes | None
    token: bytes
    sender: bytes


def read_fields(item: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of an item of a stream."""
    return dict(zip(item[::2], item[1::2], strict=False))


def read_news(place: bytes, fields: Mapping[bytes, bytes]) -> News:
    """Return an announcement as the stream holds it.

    Raises:
        ValueError: it is none.
        KeyError: it is none.
    """
    kind, digest, generation = fields[b"k"], fields[b"d"], fields[b"g"]
    if kind not in (b"intent", b"done"):
        raise KeyError(kind)
    return News(
        place,
        fields[b"i"],
        int(fields[b"n"]),
        "intent" if kind == b"intent" else "done",
        digest or None,
        generation or None,
        fields[b"t"],
        fields[b"f"],
    )
