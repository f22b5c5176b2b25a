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

_LET_GO: Final = """
return {ARGV[1], redis.call('ZREM', only('zset', KEYS[1]), ARGV[2])}
"""

HOLD: Final = script(COMMON + CHANNEL + _HOLD, tuple[bytes, int])

LET_GO: Final = script(COMMON + _LET_GO, tuple[bytes, int])
