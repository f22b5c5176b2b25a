"""Whether a plugin with keys leaves nothing in Redis that can be read, and takes nothing from it that was changed."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from ctxmiddleware import ContextPlugin, Employee, Region, Slot, UserContext
from ctxmiddleware.cache.redis.codec import MAX_BYTES
from ctxmiddleware.plugin_options import arguments_from_env
from ctxmiddleware.testing import StaticSource
from tests.backends import asyncio_only
from tests.cache.rig import PATIENT

pytestmark = [pytest.mark.anyio, asyncio_only]

ADA, BOB, NOBODY = "ada@example.com", "bob@example.com", "nobody@example.com"
KEY, ANOTHER = (base64.b64encode(bytes(range(start, start + 32))).decode() for start in (0, 100))
# Whatever of a context, or of how it travels, somebody could read or search for.
WORDS = (b"ada", b"bob", b"nobody", b"example", b"Lovelace", b"Kovacs", b"staff", b"SLOT-N1", b"North", b"static")

Server = Any  # redis-py's own types tell its asynchronous answers from the others nowhere
Meddle = Callable[[Server, bytes], object]


def _context(number: int, email: str, full_name: str) -> UserContext:
    employee = Employee(number, email, full_name, None, "staff", is_active=True)
    return UserContext(email, employee, (), (Slot(1, "SLOT-N1", "North one", 1),), (Region(1, "NORTH", "North"),))


CONTEXTS = {ADA: _context(1, ADA, "Ada Lovelace"), BOB: _context(2, BOB, "Bob Kovacs")}


def _plugin(url: str, *keys: str) -> ContextPlugin[UserContext]:
    source: StaticSource[UserContext] = StaticSource(CONTEXTS)
    return ContextPlugin(source=source, redis=url, redis_options=PATIENT, encryption_keys=keys)


@pytest.fixture
def server(redis_url: str) -> Iterator[Server]:
    """The Valkey behind it all, for a test to look into and to meddle with."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def _all_of(server: Server) -> list[bytes]:
    """Return every key, and every value whatever its type."""
    read: dict[bytes, Callable[[bytes], list[bytes]]] = {
        b"string": lambda key: [server.get(key)],
        b"hash": lambda key: [part for pair in server.hgetall(key).items() for part in pair],
        b"stream": lambda key: [repr(server.xrange(key)).encode()],
        b"set": lambda key: list(server.smembers(key)),
        b"zset": lambda key: server.zrange(key, 0, -1),
        b"list": lambda key: server.lrange(key, 0, -1),
    }
    keys = list(server.scan_iter())
    return keys + [part for key in keys for part in read[server.type(key)](key)]


def _values(server: Server) -> list[bytes]:
    return sorted(key for key in server.scan_iter() if b":v:" in key)


async def _resolve_all(plugin: ContextPlugin[UserContext]) -> dict[str, str]:
    found = {email: await plugin.resolve(email) for email in (ADA, BOB, NOBODY)}
    assert {email: each.context for email, each in found.items()} == {**CONTEXTS, NOBODY: None}
    return {email: each.origin for email, each in found.items()}


def _readable(server: Server) -> set[bytes]:
    return {word for word in WORDS for text in _all_of(server) if word in text}


async def test_keys_in_the_environment_seal_all_that_is_in_redis(
    redis_url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key and no value holds a word of a context, another instance reads them, and an invalidation reaches it."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("CTX_ENCRYPTION_KEYS", f"{KEY},{ANOTHER}")
    source: StaticSource[UserContext] = StaticSource(CONTEXTS)
    arguments = arguments_from_env(os.environ, source=source) | {"redis_options": PATIENT}
    one, two = (ContextPlugin(**arguments) for _ in range(2))
    async with one, two:
        assert set((await _resolve_all(one)).values()) == {"static"}
        assert set((await _resolve_all(two)).values()) == {"redis"}
        assert len(_values(server)) == 3
        assert _readable(server) == set()
        await one.invalidate(ADA)
        assert (await one.resolve(ADA)).origin == "static"
        assert _readable(server) == set()
        stats = two.stats().redis
        assert stats is not None
        assert (stats.hits, stats.rejected, stats.faults) == (3, 0, 0)


async def test_without_keys_they_can_be_read(redis_url: str, server: Server) -> None:
    """What the test above looks for is what there is to be found."""
    async with _plugin(redis_url) as plugin:
        await _resolve_all(plugin)
        assert _readable(server) == set(WORDS)


def _flip(server: Server, key: bytes, at: int) -> None:
    value = server.get(key)
    place = at % len(value)
    server.setrange(key, place, bytes([value[place] ^ 1]))


def _put(server: Server, key: bytes, value: bytes) -> None:
    server.set(key, value, keepttl=True)


MEDDLING: dict[str, Meddle] = {
    "the first byte": lambda server, key: _flip(server, key, 0),
    "the key's id": lambda server, key: _flip(server, key, 2),
    "a length": lambda server, key: _flip(server, key, 11),
    "a generation": lambda server, key: _flip(server, key, 14),
    "the middle": lambda server, key: _flip(server, key, 150),
    "the last byte": lambda server, key: _flip(server, key, -1),
    "cut": lambda server, key: _put(server, key, server.getrange(key, 0, -2)),
    "cut short": lambda server, key: _put(server, key, server.getrange(key, 0, 20)),
    "emptied": lambda server, key: _put(server, key, b""),
    "lengthened": lambda server, key: server.append(key, b"\0"),
    "huge": lambda server, key: server.setrange(key, MAX_BYTES, b"\0"),
    "pickled": lambda server, key: _put(server, key, b"\x80\x04N."),
    "without an expiry": lambda server, key: server.persist(key),
}


async def _both_are_rejected(plugin: ContextPlugin[UserContext]) -> None:
    for email in (ADA, BOB):
        found = await plugin.resolve(email)
        assert (found.context, found.origin) == (CONTEXTS[email], "static")
    stats = plugin.stats().redis
    assert stats is not None
    assert (stats.rejected, stats.overtaken, stats.hits, stats.faults) == (2, 0, 0, 0)


@pytest.mark.parametrize("meddling", list(MEDDLING))
async def test_what_was_changed_is_a_miss_and_is_counted(redis_url: str, server: Server, meddling: str) -> None:
    """No value is served and nothing is raised: it is loaded again, and the counter moves."""
    async with _plugin(redis_url, KEY) as one, _plugin(redis_url, KEY) as two:
        for email in (ADA, BOB):
            await one.resolve(email)
        for key in _values(server):
            MEDDLING[meddling](server, key)
        await _both_are_rejected(two)


async def test_values_that_were_swapped_are_nobody_s(redis_url: str, server: Server) -> None:
    """Each is right in itself, and under the other's key it is a miss that is counted."""
    async with _plugin(redis_url, KEY) as one, _plugin(redis_url, KEY) as two:
        for email in (ADA, BOB):
            await one.resolve(email)
        keys = _values(server)
        for key, value in zip(keys, [server.get(key) for key in reversed(keys)], strict=True):
            _put(server, key, value)
        await _both_are_rejected(two)


async def test_a_value_in_the_clear_is_not_taken_from_redis_and_not_left_there(redis_url: str, server: Server) -> None:
    """What was stored before there were keys, or is put there by whoever has none, is replaced by a sealed one."""
    async with _plugin(redis_url) as before, _plugin(redis_url, KEY) as after:
        await _resolve_all(before)
        assert set((await _resolve_all(after)).values()) == {"static"}
        assert _readable(server) == set()
        stats = after.stats().redis
        assert stats is not None
        assert stats.rejected == 3


async def test_a_value_of_an_earlier_generation_is_overtaken_and_no_more(redis_url: str, server: Server) -> None:
    """Put back after an invalidation, a value that was right before it is a miss, sealed or not."""
    async with _plugin(redis_url, KEY) as one, _plugin(redis_url, KEY) as two:
        await one.resolve(ADA)
        (key,) = _values(server)
        before = server.get(key)
        await one.invalidate(ADA)
        await one.resolve(ADA)
        _put(server, key, before)
        assert (await two.resolve(ADA)).origin == "static"
        stats = two.stats().redis
        assert stats is not None
        assert (stats.overtaken, stats.rejected) == (1, 0)
