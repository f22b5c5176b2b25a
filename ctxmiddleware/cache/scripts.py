"""What Redis does in one step: the Lua scripts, and the digests by which it knows them."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple


class Script(NamedTuple):
    """A Lua script and the digest by which Redis knows it once it has seen it."""

    text: str
    digest: str


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
local mark = math.max(redis.call('PTTL', KEYS[4]), redis.call('PTTL', KEYS[5]))
return {generation(KEYS[1]), generation(KEYS[2]), text(KEYS[3]), redis.call('PTTL', KEYS[3]), mark}
"""

_STORE: Final = """
if text(KEYS[1]) ~= ARGV[1] or text(KEYS[2]) ~= ARGV[2] then
  return 0
end
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
  outlives(KEYS[1], tonumber(ARGV[4]))
  outlives(KEYS[2], tonumber(ARGV[4]))
end
return 1
"""


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


# One step, so that no invalidation falls between the generations and the value that is judged by them.
LOOK: Final = _script(_COMMON + _LOOK)

# Compare and set: an absent generation is unlike every other, so nothing loaded under a lost one comes back.
STORE: Final = _script(_COMMON + _STORE)
