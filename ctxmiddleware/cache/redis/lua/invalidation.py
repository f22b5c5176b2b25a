"""New generations, and their announcement."""

from __future__ import annotations

from typing import Final

from .channel import CHANNEL, Roll
from .script import COMMON, script

_RENEWING: Final = """
-- Generations with their marks come first, and then the values under them that can be named.
-- One that is absent needs no other: the next look makes one that was never used before.
local function renew(pairs_, last)
  local generation, knew = '', 0
  for first = 1, 2 * pairs_, 2 do
    redis.call('SET', KEYS[first + 1], '', 'PX', ARGV[2])
    if redis.call('PTTL', KEYS[first]) ~= -2 then
      generation, knew = next_after(KEYS[first]), 1
      redis.call('SET', KEYS[first], generation, 'PX', ARGV[3])
    end
  end
  for value = 2 * pairs_ + 1, last do
    redis.call('UNLINK', KEYS[value])
  end
  return generation, knew
end
"""

_RENEW: Final = """
return {ARGV[1], {renew(tonumber(ARGV[4]), #KEYS)}}
"""

_ANNOUNCE: Final = """
local state, stream, all = unpack(KEYS, 1, 3)
announce(state, stream, unpack(ARGV, 2, 5))
return {ARGV[1], listeners(all)}
"""

_INVALIDATE: Final = """
local state, stream, all = unpack(KEYS, #KEYS - 2)
local generation, knew = renew(tonumber(ARGV[4]), #KEYS - 3)
announce(state, stream, 'done', ARGV[5], ARGV[5] == '' and '' or generation, ARGV[6])
return {ARGV[1], {listeners(all), knew}}
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
  for first = 5, #KEYS, 2 do
    if redis.call('PTTL', KEYS[first]) ~= -2 then
      redis.call('SET', KEYS[first], next_after(KEYS[first]), 'KEEPTTL')
      renewed = renewed + 1
    end
  end
  -- News it had lost may have numbers that are given again, and instances may have registered that it has not listed:
  -- channel and list begin anew.
  redis.call('DEL', KEYS[3], KEYS[4])
  redis.call('SET', KEYS[2], '', 'PX', mark_ms)
end
if lost or stored == false then
  -- What was invalidated lately is lost with the rest: an instance that begins now cannot know of it otherwise.
  for first = 5, #KEYS, 2 do
    redis.call('SET', KEYS[first + 1], '', 'PX', mark_ms)
  end
end
redis.call('SET', KEYS[1], current, 'PX', kept_ms)
return {ARGV[1], renewed}
"""

_MARK: Final = """
for _, mark in ipairs(KEYS) do
  redis.call('SET', mark, '', 'PX', ARGV[2])
end
return {ARGV[1], #KEYS}
"""

# New generations, marked as new: whoever loads under them knows how new they are.
RENEW: Final = script(COMMON + _RENEWING + _RENEW, tuple[bytes, tuple[bytes, int]])

# The same and its announcement in one step: nobody can renew and die before the others are told.
INVALIDATE: Final = script(COMMON + CHANNEL + _RENEWING + _INVALIDATE, tuple[bytes, tuple[Roll, int]])

# The announcement alone, where generations and channel are on two servers of a cluster.
ANNOUNCE: Final = script(COMMON + CHANNEL + _ANNOUNCE, tuple[bytes, Roll])

# Marks a key as invalidated just now: of a name, or of all names in a bucket.
MARK: Final = script(_MARK, tuple[bytes, int])

# Everyone's generations are new before a server that may hold old ones is called by its name.
ADMIT: Final = script(COMMON + _ADMIT, tuple[bytes, int])
