"""The channel: its state and its stream, who listens, and what is put into a listener's own stream."""

from __future__ import annotations

from typing import Final, NamedTuple

from .script import script


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

BEAT: Final = script(CHANNEL + _BEAT, tuple[bytes, Beat])

LEAVE: Final = script(_LEAVE, tuple[bytes, int])

POST: Final = script(_POST, tuple[bytes, int])
