"""Who was asked for last, so that a process that begins can ask for them first."""

from __future__ import annotations

from typing import Final

from .script import COMMON, script

_REMEMBER: Final = """
local now = redis.call('TIME')
only('zset', KEYS[1])
for place = 3, #ARGV do
  redis.call('ZADD', KEYS[1], now[1], ARGV[place])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 86400000)
return {ARGV[1], 0}
"""

_HOTTEST: Final = """
return {ARGV[1], redis.call('ZRANGE', only('zset', KEYS[1]), 0, ARGV[2] - 1, 'REV')}
"""

REMEMBER: Final = script(COMMON + _REMEMBER, tuple[bytes, int])

HOTTEST: Final = script(COMMON + _HOTTEST, tuple[bytes, list[bytes]])
