"""Values and the generations they are judged by."""

from __future__ import annotations

from typing import Final, TypeAlias

from .leases import LEASES
from .script import COMMON, script

Found: TypeAlias = tuple[bytes, bytes, bytes | None, int, int, int, int]
"""Of one user: the generations of all names and of the name, the value, and the milliseconds left of it, of the marks
of all names and of the name, and of the holds."""

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
for user = 0, #KEYS / 6 - 1 do
  local everyone, name, value = unpack(KEYS, 6 * user + 1, 6 * user + 3)
  local one = {generation(everyone), generation(name), text(value)}
  for key = 3, 6 do
    one[key + 1] = redis.call('PTTL', KEYS[6 * user + key])
  end
  found[user + 1] = one
end
return {ARGV[1], found}
"""

_STORE: Final = """
-- What settles ends with its window by the marks themselves: a command that comes late must not defer it.
local function settles_in(key, window_ms)
  if window_ms == '' then
    return math.huge
  end
  return redis.call('PTTL', key) - tonumber(ARGV[2]) + tonumber(window_ms)
end
local kept = {}
for user = 0, #KEYS / 6 - 1 do
  local everyone, name, value, lease, everyone_mark, mark = unpack(KEYS, 6 * user + 1, 6 * user + 6)
  local generation_of_all, generation, data, ms, owner, all_ms, name_ms = unpack(ARGV, 7 * user + 3, 7 * user + 9)
  kept[user + 1] = {0, waiting(lease, owner)}
  ms = math.min(tonumber(ms), settles_in(everyone_mark, all_ms), settles_in(mark, name_ms))
  data = ms > 0 and data or ''
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

# One step, so that no invalidation falls between the generations and the value that is judged by them.
LOOK: Final = script(COMMON + _LOOK, tuple[bytes, list[Found]])

# Compare and set: an absent generation is unlike every other, so nothing loaded under a lost one comes back.
STORE: Final = script(COMMON + LEASES + _STORE, tuple[bytes, list[tuple[int, list[bytes]]]])
