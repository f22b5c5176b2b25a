"""Options of a plugin beside its environment, and how both are merged into its arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from . import checks, environment, wiring
from .admin.asking import any_of
from .admin.guard import AdminGuard
from .cache.policy import CachePolicy
from .cache.redis.options import RedisOptions
from .identity.base import Identify
from .secret import Secret
from .sources.base import ContextSource
from .tracebacks import sheltered
from .unconfigured import source_in_tests
from .zones.base import ZoneSnapshot, ZoneSource

if TYPE_CHECKING:
    from .cache.redis.servers.driver import Client

T = TypeVar("T")


class PluginOptions(TypedDict, Generic[T], total=False):
    """Arguments of ContextPlugin that `from_env` takes too; one that is given is not read from the environment."""

    context_type: type[T]
    zones: ZoneSource
    zones_for: Callable[[T, ZoneSnapshot], T]
    zones_ttl: float
    redis: str | Secret | Client
    redis_options: RedisOptions
    policy: CachePolicy
    encryption_keys: Iterable[str | Secret]
    log_key: str | Secret
    namespace: str
    is_active: Callable[[T], bool]
    copy: bool
    outage: tuple[type[Exception], ...]
    clock: Callable[[], float]


@sheltered
def arguments_from_env(
    environ: Mapping[str, str],
    *,
    identify: Identify | None = None,
    source: ContextSource[Any] | None = None,
    admin_guard: AdminGuard | None = None,
    name: str = "default",
    options: PluginOptions[Any] | None = None,
) -> dict[str, Any]:
    """Return the arguments of a plugin as environment variables describe it, and options where they are given.

    Raises:
        ConfigurationError: one or more variables cannot be; the message names them all.
    """
    faults = [*checks.word_faults("name", name), *checks.identify_faults(identify), *checks.guard_faults(admin_guard)]
    if source is not None:
        faults += checks.source_faults(source)
    reading = environment.read(environ)
    if source is None and environ is os.environ:
        source = source_in_tests(reading.given)
    # Error trackers record the locals of the frames that raised.
    del environ
    parts = wiring.parts_from(reading, with_source=source is None, with_identify=identify is None, faults=faults)
    if admin_guard is not None:
        token = parts["admin_guard"]
        parts["admin_guard"] = admin_guard if token is None else any_of(token, admin_guard)
    return {"source": source, "identify": identify, **parts, "name": name, **(options or {})}
