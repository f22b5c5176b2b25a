"""What sealing adds to packing and unpacking a context, in interleaved rounds."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Callable
from datetime import date

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.redis.codec import Codec
from ctxmiddleware.cache.redis.seal import Seal
from ctxmiddleware.model import Assignment, Employee, Region, Slot, UserContext
from ctxmiddleware.secret import Secret

CALLS = 2_000
ROUNDS = 15

KEY: Key = ("", "ada@example.org")
FENCE = Fence(b"e" * 32, b"n" * 32)
REDIS_KEY = f"ctx:{{bench:00}}:v:{'0' * 16}:{'0' * 32}"
STORED = Stored(
    UserContext(
        KEY[1],
        Employee(1, KEY[1], "Ada Lovelace", "Lead", "staff", is_active=True),
        tuple(Assignment(each, 1, each, each == 0, date(2026, 1, 1), None) for each in range(8)),
        tuple(Slot(each, f"S{each}", f"Slot number {each}", each % 3) for each in range(8)),
        tuple(Region(each, f"R{each}", f"Region number {each}") for each in range(3)),
    ),
    "rpc",
    900.0,
)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - began) / CALLS


def run(rounds_of_both: int = ROUNDS) -> list[dict[str, object]]:
    """Return, in the clear and sealed, a context's bytes, its microseconds, and how many times those in the clear."""
    seal = Seal([Secret(base64.b64encode(bytes(range(32))).decode())])
    rounds: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, int] = {}
    for _ in range(rounds_of_both):
        for form, codec in (("in the clear", Codec(UserContext)), ("sealed", Codec(UserContext, seal=seal))):
            pack, unpack, data = _calls(codec)
            sizes[form] = len(data)
            rounds.setdefault(form, []).append((_seconds(pack), _seconds(unpack)))
    took = {form: [statistics.median(side) for side in zip(*each, strict=True)] for form, each in rounds.items()}
    return [
        {
            "a context": form,
            "bytes": sizes[form],
            "pack us": round(pack * 1e6, 2),
            "unpack us": round(unpack * 1e6, 2),
            "times": " and ".join(f"{a / b:.1f}" for a, b in zip((pack, unpack), took["in the clear"], strict=True)),
        }
        for form, (pack, unpack) in took.items()
    ]


def _calls(codec: Codec[UserContext]) -> tuple[Callable[[], bytes | None], Callable[[], object], bytes]:
    def pack() -> bytes | None:
        return codec.pack(KEY, FENCE, STORED, 1_200_000, redis_key=REDIS_KEY)

    data = pack() or b""

    def unpack() -> object:
        return codec.unpack(data, KEY, FENCE, 1_200_000, redis_key=REDIS_KEY)

    if unpack() != STORED:
        raise SystemExit("what was packed did not come back: what was measured is nothing")
    return pack, unpack, data
