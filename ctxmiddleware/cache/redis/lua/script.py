"""A script, and what most of them have in common."""

from __future__ import annotations

import hashlib
from typing import Final, Generic, NamedTuple, TypeVar

R = TypeVar("R")


class Script(NamedTuple, Generic[R]):
    """A Lua script, the digest by which Redis knows it once it has seen it, and the type of its answer.

    Every script answers with its first argument, a value never used before, and then with what it has to say: whoever
    reads another's answer from a connection out of step finds it out.
    """

    text: str
    digest: str
    reply: type[tuple[bytes, R]]


def script(text: str, reply: type[tuple[bytes, R]]) -> Script[R]:
    """Return a script.

    Args:
        text: what it does.
        reply: the type of its answer.
    """
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), reply)


# What has another type at our key is nobody's value: a plain GET would fail there, and with it the whole step. Where it
# has to be something to write to, it is deleted.
# A generation is prolonged when less than half of its time is left: rarely, since prolonging is a write.
COMMON: Final = """
local function text(key)
  local held = redis.pcall('GET', key)
  return type(held) == 'string' and held or false
end
local function only(kind, key)
  local held = redis.call('TYPE', key).ok
  if held ~= kind and held ~= 'none' then
    redis.call('DEL', key)
  end
  return key
end
local function outlives(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, 2 * ms)
  end
end
-- Chained to the former: a client that sends a command again because its connection was lost must not put back what
-- another invalidation has replaced meanwhile.
local function next_after(key)
  return ARGV[1] .. string.sub(redis.sha1hex(text(key) or ''), 1, 16)
end
"""
