"""Values and the generations they are judged by."""

from __future__ import annotations

from typing import Final, TypeAlias

from .leases import LEASES
from .script import COMMON, script

Found: TypeAlias = tuple[bytes, bytes, bytes | None, int, int]
"""Of one user: the generations of everyone and of the name, the value and its milliseconds, and those of the mark."""

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

# One step, so that no invalidation falls between the generations and the value that is judged by them.
LOOK: Final = script(COMMON + _LOOK, tuple[bytes, list[Found]])

# Compare and set: an absent generation is unlike every other, so nothing loaded under a lost one comes back.
STORE: Final = script(COMMON + LEASES + _STORE, tuple[bytes, list[tuple[int, list[bytes]]]])
