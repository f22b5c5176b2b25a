"""Who loads: leases of loads, and who waits for them."""

from __future__ import annotations

from typing import Final

from .script import script

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

_CLAIM: Final = """
local taken = {}
for user, lease in ipairs(KEYS) do
  local everyone, name, owner, me = unpack(ARGV, 4 * user - 1, 4 * user + 2)
  local left = redis.call('TYPE', lease).ok == 'hash' and redis.call('PTTL', lease) or 0
  if left > 0 and redis.call('HGET', lease, 'e') == everyone and redis.call('HGET', lease, 'n') == name
    -- A claim that is sent again because its answer was lost is no other's.
    and redis.call('HGET', lease, 'o') ~= owner then
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

# Whoever is first loads; the rest are told how long to wait, and are woken.
CLAIM: Final = script(_CLAIM, tuple[bytes, list[int]])

PROLONG: Final = script(_PROLONG, tuple[bytes, list[int]])

RELEASE: Final = script(LEASES + _RELEASE, tuple[bytes, list[list[bytes]]])
