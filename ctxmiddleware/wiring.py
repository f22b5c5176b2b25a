"""Putting the parts together: the only file that knows every concrete class; drivers are imported at first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from . import checks
from .admin.guard import BearerToken
from .cache.policy import CachePolicy
from .cache.redis.codec import Codec
from .cache.redis.options import RedisOptions
from .cache.redis.seal import Seal
from .cache.tiered import TieredCache
from .clock import monotonic
from .context_types.copier import Copier
from .context_types.serializer import Serializer
from .environment import Reading
from .errors import ConfigurationError
from .faults import Faults
from .identity.jwt.bearer import BearerJWT
from .identity.scope_user import ScopeUser
from .loading import Loading
from .model import UserContext
from .project import Project
from .pseudonym import Pseudonyms
from .resolver import Resolver
from .secret import Secret
from .settings import ADMIN_TOKEN, Settings
from .shown import shown
from .sources.base import ContextSource
from .sources.traits import label_of, lag_of, tell_settle
from .stats import Counters
from .zones.base import ZoneSnapshot, ZoneSource
from .zones.service import ZonesService

if TYPE_CHECKING:
    from .cache.redis.servers.driver import Client
    from .cache.redis.tier import RedisTier

T = TypeVar("T")

_ANY_PROJECT: Final = Project("https://project.invalid")
_ANY_KEY: Final = Secret("sb_secret_none")


@dataclass(frozen=True, slots=True)
class Assembly(Generic[T]):
    """The working parts of one plugin."""

    resolver: Resolver[T]
    cache: TieredCache[T]
    loading: Loading[T]
    redis: RedisTier[T] | None
    zones: ZonesService | None
    counters: Counters


def assemble(
    *,
    namespace: str,
    source: ContextSource[T],
    zones: ZoneSource | None,
    zones_ttl: float,
    zones_for: Callable[[T, ZoneSnapshot], T] | None,
    redis: str | Secret | Client | None,
    policy: CachePolicy,
    context_type: type[T],
    seal: Seal | None = None,
    redis_options: RedisOptions | None = None,
    pseudonyms: Pseudonyms,
    shared_rows: tuple[type, ...] = (),
    copy_mutable: bool = True,
    outage: tuple[type[Exception], ...] = (),
    clock: Callable[[], float] = monotonic,
) -> Assembly[T]:
    """Build what resolves, caches and joins; nothing is opened.

    Raises:
        ConfigurationError: a part refuses what it was given.
    """
    counters = Counters()
    tell_settle(source, policy.settle)
    tier: RedisTier[T] | None = None
    if redis is not None:
        tier = _redis_tier(redis, namespace, source, context_type, policy, counters, seal, redis_options)
    copier = Copier[T](context_type, copy_mutable=copy_mutable)
    loading = Loading(
        source,
        context_type=context_type,
        exact=tier is not None,
        outage=outage,
        prepare=_prepared_by(copier, None if tier is None else tier.codec.values),
        load_timeout=policy.load_timeout,
    )
    cache: TieredCache[T] = TieredCache(
        policy,
        loading,
        shared=tier,
        counters=counters,
        clock=clock,
        share=shared_rows,
        source_lag=lag_of(source),
    )
    told = partial(cache.watchers.ring, None)
    service = None if zones is None else ZonesService(zones, ttl=zones_ttl, clock=clock, changed=told)
    resolver = Resolver(
        cache,
        loading,
        zones=None if service is None else lambda: service.snapshot,
        zones_for=zones_for,
        shared=tier is not None,
        own=copier,
        counters=counters,
        pseudonyms=pseudonyms,
        clock=clock,
        me=None if tier is None else lambda: tier.instance,
    )
    return Assembly(resolver, cache, loading, tier, service, counters)


def parts_from(
    reading: Reading, *, with_source: bool, with_identify: bool = False, faults: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the arguments of ContextPlugin that an environment stands for.

    Args:
        reading: what the environment said; what is wrong with it is told together with what the parts refuse.
        with_source: whether the source is to be built too.
        with_identify: whether what identifies users is.
        faults: what else is wrong, to be told in the same error.

    Raises:
        ConfigurationError: something is wrong; the message names it all.
    """
    settings, found = reading.settings, Faults((*reading.faults, *faults))
    parts: dict[str, Any] = {
        "redis": settings.redis_url,
        "redis_options": settings.redis_options,
        "policy": settings.policy,
        "zones": found.built(lambda: _zones(settings)),
        "zones_ttl": settings.zones_ttl,
        "admin_guard": found.built(lambda: _guard(settings), variable=ADMIN_TOKEN),
        "encryption_keys": settings.encryption_keys,
        "namespace": settings.namespace,
        "log_key": settings.log_key,
    }
    found.built(lambda: seal_of(settings.encryption_keys))
    if settings.redis_url is not None:
        given = (settings.redis_url, "default", None, UserContext, CachePolicy(), Counters())
        found.built(lambda: _redis_tier(*given), variable="REDIS_URL")
    if with_source:
        missing = [variable for variable in ("SUPABASE_URL", "SUPABASE_KEY") if variable not in reading.given]
        found.add(*(f"{variable} is not set" for variable in missing))
        parts["source"] = found.built(lambda: _source(settings))
    if with_identify and (settings.supabase_jwt_secret or settings.supabase_jwks_url):
        parts["identify"] = found.built(lambda: _bearer(settings))
    elif with_identify:
        parts["identify"] = ScopeUser(hint=_without_jwt(settings))
    found.refuse()
    return parts


def _prepared_by(copier: Copier[T], serializer: Serializer[T] | None) -> Callable[[T], T]:
    def prepare(context: T) -> T:
        context = copier.admit(context)
        return context if serializer is None else serializer.in_utc(context)

    return prepare


def namespace_of(name: str, namespace: str | None) -> str:
    """Return what begins a plugin's keys in Redis."""
    return name if namespace is None else f"{namespace}/{name}"


def seal_of(keys: Iterable[str | Secret]) -> Seal | None:
    """Return what seals values in Redis, or None where there are no keys.

    Raises:
        ConfigurationError: they are no keys.
        MissingExtra: the library that seals is not installed.
    """
    faults = checks.keys_faults(keys)
    if faults:
        raise ConfigurationError(*faults)
    secrets = tuple(Secret(key) if isinstance(key, str) else key for key in keys)
    return Seal(secrets) if secrets else None


def _bearer(settings: Settings) -> BearerJWT:
    # As Supabase issues them, unless somebody says otherwise.
    project = settings.supabase_url
    issuer = settings.jwt_issuer or (None if project is None else project.issuer)
    return BearerJWT(
        settings.supabase_jwks_url,
        secret=settings.supabase_jwt_secret,
        issuer=issuer,
        audience=settings.jwt_audience,
    )


def _without_jwt(settings: Settings) -> str:
    project = settings.supabase_url or _ANY_PROJECT
    return (
        "no user is on the scope, and no variable says how bearer tokens are verified: set SUPABASE_JWKS_URL (such as "
        f"{shown(project.jwks_url)}) or SUPABASE_JWT_SECRET; where another middleware signs users in, give "
        "from_env(identify=ScopeUser())"
    )


def _guard(settings: Settings) -> BearerToken | None:
    return None if settings.admin_token is None else BearerToken(settings.admin_token)


def _source(settings: Settings) -> object:
    from .sources.supabase import SupabaseSource

    return SupabaseSource(
        # In the place of what is missing or unreadable, so that what is wrong with the rest is told all the same.
        settings.supabase_url or _ANY_PROJECT,
        settings.supabase_key or _ANY_KEY,
        schema=settings.supabase_schema,
        read_url=settings.supabase_read_url,
        pool=settings.pool,
        replica_lag=settings.replica_lag,
    )


def _zones(settings: Settings) -> ZoneSource | None:
    if settings.bigquery_project is None or settings.bigquery_zones_table is None:
        return None
    from .zones.bigquery import BigQueryZones

    return BigQueryZones(
        settings.bigquery_project,
        settings.bigquery_zones_table,
        location=settings.bigquery_location,
        max_bytes=settings.bigquery_max_bytes,
    )


def redis_after_fork(redis: Secret | Client | None) -> Secret | Client | None:
    """Return what a forked process asks in the place of what its parent was given."""
    if redis is None or isinstance(redis, Secret):
        return redis
    from .cache.redis.servers.connection import twin_of

    return twin_of(redis)


def _redis_tier(
    target: str | Secret | Client,
    namespace: str,
    source: object,
    context_type: type[T],
    policy: CachePolicy,
    counters: Counters,
    seal: Seal | None = None,
    options: RedisOptions | None = None,
) -> RedisTier[T]:
    from .cache.redis.tier import RedisTier

    # Contexts of another database are of other users, and one time to live must not be taken for another.
    label = "\n".join((label_of(source), repr(float(policy.ttl)), repr(float(policy.negative_ttl))))
    codec = Codec(context_type, label, seal=seal)
    return RedisTier(target, codec=codec, namespace=namespace, counters=counters, options=options)
