"""The channel: its state and its stream, who listens, and what is put into a listener's own stream."""

from __future__ import annotations

from typing import Final, NamedTuple

from .script import COMMON, script


class Beat(NamedTuple):
    """The state of the channel: its incarnation, the number of the last announcement, and its place in the stream."""

    incarnation: bytes
    number: int
    place: bytes


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
local function listeners(key)
  local found, now = {}, now_ms()
  local held = redis.call('ZRANGE', only('zset', key), 0, -1, 'WITHSCORES')
  for place = 1, #held, 2 do
    found[#found + 1] = {held[place], math.max(0, now - tonumber(held[place + 1]))}
  end
  return found
end
"""

# Who listens says so, and is forgotten some time after he last did.
_BEAT: Final = """
local state, stream, all, inbox = unpack(KEYS, 1, 4)
local held = incarnation(state, stream)
local now = now_ms()
only('stream', inbox)
redis.call('ZREMRANGEBYSCORE', only('zset', all), '-inf', now - tonumber(ARGV[3]))
-- The clock of a former master may have been ahead: such an entry would never be forgotten.
redis.call('ZREMRANGEBYSCORE', all, now + 60000, '+inf')
redis.call('ZADD', all, now, ARGV[2])
keep(state, stream, all)
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
return {ARGV[1], {held, tonumber(redis.call('HGET', state, 'n') or 0), last[1] and last[1][1] or '0-0'}}
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
