"""What Redis does in one step: the Lua scripts, the digests by which it knows them, and what they answer."""

from __future__ import annotations

import hashlib
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

R = TypeVar("R")

Found: TypeAlias = tuple[bytes, bytes, bytes | None, int, int]
"""Of one user: the generations of everyone and of the name, the value and its milliseconds, and those of the mark."""

Listening: TypeAlias = tuple[bytes, int]
"""Who listens to the channel, and the milliseconds since he last said so."""


class Beat(NamedTuple):
    """The state of the channel: its incarnation, the number of the last announcement, and its place in the stream."""

    incarnation: bytes
    number: int
    place: bytes


class Script(NamedTuple, Generic[R]):
    """A Lua script, the digest by which Redis knows it once it has seen it, and the type of its answer.

    Every script answers with its first argument, a value never used before, and then with what it has to say: whoever
    reads another's answer from a connection out of step finds it out.
    """

    text: str
    digest: str
    reply: type[tuple[bytes, R]]


# What has another type at our key is nobody's value: a plain GET would fail there, and with it the whole step.
# A generation is prolonged when less than half of its time is left: rarely, since prolonging is a write.
_COMMON: Final = """
local function text(key)
  local held = redis.pcall('GET', key)
  return type(held) == 'string' and held or false
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

# What happened is announced in the stream, with a number one higher than the last: whoever misses one notices. The
# state names the incarnation of the channel, which is another one whenever its state was lost.
_CHANNEL: Final = """
local function keep(...)
  for _, key in ipairs({...}) do
    redis.call('PEXPIRE', key, 86400000)
  end
end
local function incarnation(state, stream)
  local held = redis.call('HGET', state, 'i')
  if not held then
    held = ARGV[1]
    redis.call('HSET', state, 'i', held)
    redis.call('DEL', stream)
  end
  return held
end
local function announce(state, stream, kind, name, generation, from)
  local held = incarnation(state, stream)
  local number = redis.call('HINCRBY', state, 'n', 1)
  redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*',
    'i', held, 'n', number, 'k', kind, 'd', name, 'g', generation, 't', ARGV[1], 'f', from)
  keep(state, stream)
end
local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
local function listeners(key)
  local found, now = {}, now_ms()
  local held = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for place = 1, #held, 2 do
    found[#found + 1] = {held[place], math.max(0, now - tonumber(held[place + 1]))}
  end
  return found
end
"""

# Who listens says so, and is forgotten some time after he last did.
_BEAT: Final = """
local state, stream, all = unpack(KEYS, 1, 3)
local held = incarnation(state, stream)
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', all, '-inf', now - tonumber(ARGV[3]))
redis.call('ZADD', all, now, ARGV[2])
keep(state, stream, all)
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
return {ARGV[1], {held, tonumber(redis.call('HGET', state, 'n') or 0), last[1] and last[1][1] or '0-0'}}
"""

_LEAVE: Final = """
return {ARGV[1], redis.call('ZREM', KEYS[1], ARGV[2])}
"""

_POST: Final = """
for place, inbox in ipairs(KEYS) do
  redis.call('XADD', inbox, 'MAXLEN', '~', 10000, '*', 'k', ARGV[2 * place + 1], 'v', ARGV[2 * place + 2])
  redis.call('PEXPIRE', inbox, ARGV[2])
end
return {ARGV[1], #KEYS}
"""

_REMEMBER: Final = """
local now = redis.call('TIME')
for place = 3, #ARGV do
  redis.call('ZADD', KEYS[1], now[1], ARGV[place])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 86400000)
return {ARGV[1], 0}
"""

_HOTTEST: Final = """
return {ARGV[1], redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1, 'REV')}
"""

_LOOK: Final = """
local keep = tonumber(ARGV[2])
local function generation(key)
  local held = text(key)
  if held then
    outlives(key, keep)
  else
    held = ARGV[1]
    redis.call('SET', key, held, 'PX', 2 * keep)
  end
  return held
end
local found = {}
for user = 0, #KEYS / 5 - 1 do
  local everyone, name, value, everyone_mark, mark = unpack(KEYS, 5 * user + 1, 5 * user + 5)
  local mark_ms = math.max(redis.call('PTTL', everyone_mark), redis.call('PTTL', mark))
  found[user + 1] = {generation(everyone), generation(name), text(value), redis.call('PTTL', value), mark_ms}
end
return {ARGV[1], found}
"""

# A lease says who loads, under which generations, and who waits. One under other generations is of a load that was
# overtaken: it holds up nobody.
_LEASES: Final = """
local function waiting(lease, owner)
  local found = {}
  if owner ~= '' and redis.call('TYPE', lease).ok == 'hash' and redis.call('HGET', lease, 'o') == owner then
    for _, field in ipairs(redis.call('HKEYS', lease)) do
      if string.sub(field, 1, 2) == 'w:' then
        found[#found + 1] = string.sub(field, 3)
      end
    end
    redis.call('DEL', lease)
  end
  return found
end
"""

_CLAIM: Final = """
local taken = {}
for user, lease in ipairs(KEYS) do
  local everyone, name, owner, me = unpack(ARGV, 4 * user - 1, 4 * user + 2)
  local left = redis.call('TYPE', lease).ok == 'hash' and redis.call('PTTL', lease) or 0
  if left > 0 and redis.call('HGET', lease, 'e') == everyone and redis.call('HGET', lease, 'n') == name then
    redis.call('HSET', lease, 'w:' .. me, '')
    taken[user] = left
  else
    redis.call('DEL', lease)
    redis.call('HSET', lease, 'o', owner, 'e', everyone, 'n', name)
    redis.call('PEXPIRE', lease, ARGV[2])
    taken[user] = 0
  end
end
return {ARGV[1], taken}
"""

_PROLONG: Final = """
local held = {}
for user, lease in ipairs(KEYS) do
  held[user] = 0
  if redis.call('TYPE', lease).ok == 'hash' and redis.call('HGET', lease, 'o') == ARGV[user + 2] then
    held[user] = redis.call('PEXPIRE', lease, ARGV[2])
  end
end
return {ARGV[1], held}
"""

_RELEASE: Final = """
local found = {}
for user, lease in ipairs(KEYS) do
  found[user] = waiting(lease, ARGV[user + 1])
end
return {ARGV[1], found}
"""

_STORE: Final = """
local kept = {}
for user = 0, #KEYS / 4 - 1 do
  local everyone, name, value, lease = unpack(KEYS, 4 * user + 1, 4 * user + 4)
  local generation_of_all, generation, data, ms, owner = unpack(ARGV, 5 * user + 2, 5 * user + 6)
  kept[user + 1] = {0, waiting(lease, owner)}
  if text(everyone) == generation_of_all and text(name) == generation then
    kept[user + 1][1] = 1
    if data ~= '' then
      redis.call('SET', value, data, 'PX', ms)
      outlives(everyone, tonumber(ms))
      outlives(name, tonumber(ms))
    end
  end
end
return {ARGV[1], kept}
"""

_RENEWING: Final = """
local function renew(last)
  local generation
  for first = 1, last, 2 do
    generation = next_after(KEYS[first])
    redis.call('SET', KEYS[first + 1], '', 'PX', ARGV[2])
    redis.call('SET', KEYS[first], generation, 'PX', ARGV[3])
  end
  return generation
end
"""

_RENEW: Final = """
return {ARGV[1], renew(#KEYS)}
"""

_ANNOUNCE: Final = """
local state, stream, all = unpack(KEYS, 1, 3)
announce(state, stream, unpack(ARGV, 2, 5))
return {ARGV[1], listeners(all)}
"""

_INVALIDATE: Final = """
local state, stream, all = unpack(KEYS, #KEYS - 2)
local generation = renew(#KEYS - 3)
announce(state, stream, 'done', ARGV[4], ARGV[4] == '' and '' or generation, ARGV[5])
return {ARGV[1], listeners(all)}
"""

# The server is `current`; this process has known it as `known` until `since` milliseconds ago. Where it is another,
# whoever came first has renewed everyone's generations since then, and the rest need not do it again.
_ADMIT: Final = """
local known, current, since, mark_ms, kept_ms = unpack(ARGV, 2, 6)
local stored = text(KEYS[1])
local lost = stored ~= current and not (stored == false and known == current)
if stored == current and known ~= '' and known ~= current then
  local left = redis.call('PTTL', KEYS[2])
  lost = left < 0 or mark_ms - left >= tonumber(since)
end
local renewed = 0
if lost then
  for first = 4, #KEYS, 2 do
    if redis.call('PTTL', KEYS[first]) ~= -2 then
      redis.call('SET', KEYS[first], next_after(KEYS[first]), 'KEEPTTL')
      renewed = renewed + 1
    end
  end
  for first = 4, renewed > 0 and #KEYS or 0, 2 do
    redis.call('SET', KEYS[first + 1], '', 'PX', mark_ms)
  end
  -- News it had lost may have numbers that are given again: whoever listens begins anew.
  redis.call('DEL', KEYS[3])
  redis.call('SET', KEYS[2], '', 'PX', mark_ms)
end
redis.call('SET', KEYS[1], current, 'PX', kept_ms)
return {ARGV[1], renewed}
"""


def _script(text: str, reply: type[tuple[bytes, R]]) -> Script[R]:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), reply)


# One step, so that no invalidation falls between the generations and the value that is judged by them.
LOOK: Final = _script(_COMMON + _LOOK, tuple[bytes, list[Found]])

# Compare and set: an absent generation is unlike every other, so nothing loaded under a lost one comes back.
STORE: Final = _script(_COMMON + _LEASES + _STORE, tuple[bytes, list[tuple[int, list[bytes]]]])

# Whoever is first loads; the rest are told how long to wait, and are woken.
CLAIM: Final = _script(_CLAIM, tuple[bytes, list[int]])

PROLONG: Final = _script(_PROLONG, tuple[bytes, list[int]])

RELEASE: Final = _script(_LEASES + _RELEASE, tuple[bytes, list[list[bytes]]])

# New generations, marked as new: whoever loads under them knows how new they are.
RENEW: Final = _script(_COMMON + _RENEWING + _RENEW, tuple[bytes, bytes])

# The same and its announcement in one step: nobody can renew and die before the others are told.
INVALIDATE: Final = _script(_COMMON + _CHANNEL + _RENEWING + _INVALIDATE, tuple[bytes, list[Listening]])

# The announcement alone, where generations and channel are on two servers of a cluster.
ANNOUNCE: Final = _script(_CHANNEL + _ANNOUNCE, tuple[bytes, list[Listening]])

LEAVE: Final = _script(_LEAVE, tuple[bytes, int])

# Who was asked for last, so that a process that begins can ask for them first.
REMEMBER: Final = _script(_REMEMBER, tuple[bytes, int])

HOTTEST: Final = _script(_HOTTEST, tuple[bytes, list[bytes]])

BEAT: Final = _script(_CHANNEL + _BEAT, tuple[bytes, Beat])

POST: Final = _script(_POST, tuple[bytes, int])

# Everyone's generations are new before a server that may hold old ones is called by its name.
ADMIT: Final = _script(_COMMON + _ADMIT, tuple[bytes, int])
