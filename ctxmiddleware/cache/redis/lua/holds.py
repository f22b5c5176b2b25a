"""Holds: names whose loads no instance keeps, each holder with an end of its own."""

from __future__ import annotations

from typing import Final

from .channel import CHANNEL
from .script import COMMON, script

_HOLD: Final = """
local holds, holder, lasts = only('zset', KEYS[1]), ARGV[2], tonumber(ARGV[3])
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', holds, '-inf', now)
local held = redis.call('ZSCORE', holds, holder) and 1 or 0
redis.call('ZADD', holds, now + lasts, holder)
redis.call('PEXPIRE', holds, lasts)
return {ARGV[1], held}
"""

# The key's end is that of its last holder: what a dead one had left is no longer than what it has said.
_LET_GO: Final = """
local holds, now = only('zset', KEYS[1]), now_ms()
local let_go = redis.call('ZREM', holds, ARGV[2])
redis.call('ZREMRANGEBYSCORE', holds, '-inf', now)
local last = redis.call('ZRANGE', holds, -1, -1, 'WITHSCORES')[2]
if last then
  redis.call('PEXPIRE', holds, last - now)
end
return {ARGV[1], let_go}
"""

HOLD: Final = script(COMMON + CHANNEL + _HOLD, tuple[bytes, int])

LET_GO: Final = script(COMMON + CHANNEL + _LET_GO, tuple[bytes, int])
