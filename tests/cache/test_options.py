"""Whether options for Redis that cannot work are refused where they are made."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from ctxmiddleware import ConfigurationError, ContextPlugin, RedisOptions, UserContext
from ctxmiddleware.testing import StaticSource

COUNTS = {"pool_size": 1, "fault_threshold": 1, "replicas": 0}


@pytest.mark.parametrize("name", [field.name for field in fields(RedisOptions)])
def test_a_value_out_of_its_range_is_named(name: str) -> None:
    """Times are over 0 and end, counts are what can be counted."""
    odd = (math.nan, True, "1", None)
    bad = (COUNTS[name] - 1, 1.5, *odd) if name in COUNTS else (0, -1, 0.0001, math.inf, *odd)
    for value in bad:
        changed: dict[str, Any] = {name: value}
        with pytest.raises(ConfigurationError, match=rf"^RedisOptions.{name} was {value!r}, must be "):
            RedisOptions(**changed)
    fitting: dict[str, Any] = {name: COUNTS.get(name, 0.001)}
    assert getattr(RedisOptions(**fitting), name) == fitting[name]


def test_all_faults_are_told_at_once() -> None:
    """Whoever mends one should not find the next one only then."""
    with pytest.raises(ConfigurationError, match=r"RedisOptions.timeout.*\n.*RedisOptions.pool_size"):
        RedisOptions(timeout=0, pool_size=0)


def test_a_plugin_takes_them_and_nothing_else() -> None:
    """Whatever else is given in their place is named together with what is right."""
    source: StaticSource[UserContext] = StaticSource({})
    options = RedisOptions(timeout=1.5)
    plugin = ContextPlugin(source=source, redis="redis://127.0.0.1:1/0", redis_options=options)
    assert plugin._assembly.redis is not None
    assert plugin._assembly.redis._options is options
    with pytest.raises(ConfigurationError, match="redis_options was dict; give RedisOptions"):
        ContextPlugin(source=source, redis_options={"timeout": 1})  # type: ignore[arg-type]


def test_an_environment_says_how_many_replicas_must_have_an_invalidation() -> None:
    """With Redis, or it would be ignored."""
    environ = {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_KEY": "sb_secret_x", "CTX_REDIS_REPLICAS": "2"}
    with pytest.raises(ConfigurationError, match="CTX_REDIS_REPLICAS needs REDIS_URL"):
        ContextPlugin.from_env(environ)
    plugin = ContextPlugin.from_env({**environ, "REDIS_URL": "redis://127.0.0.1:1/0"})
    assert plugin._assembly.redis is not None
    assert plugin._assembly.redis._options == RedisOptions(replicas=2)
