"""Who loads: leases of loads, and who waits for them."""

from __future__ import annotations

from typing import Final

from .script import COMMON, script

# A lease says who loads, under which generations, and who waits. One under other generations is of a load that was
# overtaken: it holds up nobody.
LEASES: Final = """
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

# What was looked up is told along: it may be another's turn by now, or the value may be there. One that was stored
# since then has longer to live than what was there before.
_CLAIM: Final = """
local taken = {}
local lasts = tonumber(ARGV[2])
local function held_for(lease, everyone, name, owner)
  if redis.call('TYPE', lease).ok ~= 'hash' then
    return 0
  end
  -- A claim that is sent again because its answer was lost is no other's.
  if redis.call('HGET', lease, 'e') ~= everyone or redis.call('HGET', lease, 'n') ~= name
    or redis.call('HGET', lease, 'o') == owner then
    return 0
  end
  local left = redis.call('PTTL', lease)
  if left > lasts then
    -- Of an instance that was set up otherwise, which will prolong it, or of nobody.
    redis.call('PEXPIRE', lease, lasts)
  end
  return math.max(math.min(left, lasts), 0)
end
for user = 0, #KEYS / 4 - 1 do
  local all_key, name_key, value, lease = unpack(KEYS, 4 * user + 1, 4 * user + 4)
  local everyone, name, value_ms, owner, me = unpack(ARGV, 5 * user + 3, 5 * user + 7)
  if text(all_key) ~= everyone or text(name_key) ~= name or redis.call('PTTL', value) > tonumber(value_ms) then
    taken[user + 1] = -1
  else
    local left = held_for(lease, everyone, name, owner)
    taken[user + 1] = left
    if left > 0 then
      redis.call('HSET', lease, 'w:' .. me, '')
    else
      redis.call('DEL', lease)
      redis.call('HSET', lease, 'o', owner, 'e', everyone, 'n', name)
      redis.call('PEXPIRE', lease, lasts)
    end
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

# Whoever is first loads; the rest are told how long to wait, and are woken.
CLAIM: Final = script(COMMON + _CLAIM, tuple[bytes, list[int]])

PROLONG: Final = script(_PROLONG, tuple[bytes, list[int]])

RELEASE: Final = script(LEASES + _RELEASE, tuple[bytes, list[list[bytes]]])
