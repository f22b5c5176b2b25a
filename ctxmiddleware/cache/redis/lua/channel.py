"""The channel: its state and its stream, who listens, and what is put into a listener's own stream."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from .script import COMMON, script

# Past its last beat an instance goes on serving from memory for so long, and is listed until what it has loaded by then
# is over.
LISTED_MS: Final = 300_000

Listening: TypeAlias = tuple[bytes, int]
"""An instance in the list, as it registered, and the milliseconds since its last beat."""


class Roll(NamedTuple):
    """The list of instances.

    Args:
        listening: the instances.
        age_ms: milliseconds since the list was begun; 0 where there is none.
        longest_ms: the longest time for which any registered one serves a value after an invalidation that it missed.
    """

    listening: list[Listening]
    age_ms: int
    longest_ms: int


class Beat(NamedTuple):
    """The state of the channel.

    Args:
        incarnation: another one whenever its state was lost.
        number: of the last announcement.
        place: of the last announcement in the stream.
        longest_ms: as in `Roll`.
    """

    incarnation: bytes
    number: int
    place: bytes
    longest_ms: int = 0


# What happened is announced in the stream, with a number one higher than the last: whoever misses one notices. The
# state names the incarnation of the channel, which is another one whenever its state was lost.
CHANNEL: Final = """
local function keep(...)
  for _, key in ipairs({...}) do
    redis.call('PEXPIRE', key, 86400000)
  end
end
local function incarnation(state, stream)
  local held = redis.call('HGET', only('hash', state), 'i')
  local number = redis.call('HGET', state, 'n') or '0'
  -- With anything but a count there, none goes on from it.
  if not held or #number > 15 or not string.match(number, '^%d+$') then
    held = ARGV[1]
    redis.call('DEL', state, stream)
    redis.call('HSET', state, 'i', held)
  end
  only('stream', stream)
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
-- What is known of the list stands in it, with a score below 0, and so is lost only together with it.
local function noted(all, what)
  local score = redis.call('ZSCORE', only('zset', all), what)
  return score and -tonumber(score)
end
local function listeners(all)
  local found, now, begun = {}, now_ms(), noted(all, 'begun')
  local held = redis.call('ZRANGE', all, '(0', '+inf', 'BYSCORE', 'WITHSCORES')
  for place = 1, #held, 2 do
    found[#found + 1] = {held[place], math.max(0, now - tonumber(held[place + 1]))}
  end
  return {found, begun and math.max(0, now - begun) or 0, noted(all, 'longest') or 0}
end
"""

# An instance is listed for as long as its last beat allows it to serve.
_BEAT: Final = """
local state, stream, all, inbox = unpack(KEYS, 1, 4)
local held = incarnation(state, stream)
local now = now_ms()
only('stream', inbox)
local longest = math.max(tonumber(ARGV[3]), noted(all, 'longest') or 0)
redis.call('ZREMRANGEBYSCORE', all, '(0', now - longest - tonumber(ARGV[4]))
-- The clock of a former master may have been ahead: such an entry would never end.
local ahead = redis.call('ZREMRANGEBYSCORE', all, now + 60000, '+inf')
if ahead > 0 or not noted(all, 'begun') then
  redis.call('ZADD', all, -now, 'begun')
end
redis.call('ZADD', all, -longest, 'longest', now, ARGV[2])
keep(state, stream, all)
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
local number = tonumber(redis.call('HGET', state, 'n') or 0)
return {ARGV[1], {held, number, last[1] and last[1][1] or '0-0', longest}}
"""

_LEAVE: Final = """
return {ARGV[1], redis.call('ZREM', only('zset', KEYS[1]), ARGV[2])}
"""

_POST: Final = """
for place, inbox in ipairs(KEYS) do
  local kind, value = unpack(ARGV, 2 * place + 1, 2 * place + 2)
  redis.call('XADD', only('stream', inbox), 'MAXLEN', '~', 10000, '*', 'k', kind, 'v', value)
  redis.call('PEXPIRE', inbox, ARGV[2])
end
return {ARGV[1], #KEYS}
"""

BEAT: Final = script(COMMON + CHANNEL + _BEAT, tuple[bytes, Beat])

LEAVE: Final = script(COMMON + _LEAVE, tuple[bytes, int])

POST: Final = script(COMMON + _POST, tuple[bytes, int])
