"""What a plugin is apart from its place in an app: resolve, invalidate, open and close, as the middleware needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

import anyio

from . import checks, forking, wiring
from .accessors import scope_key
from .admin.app import AdminApp
from .admin.guard import AdminGuard
from .cache.policy import CachePolicy
from .cache.redis.options import RedisOptions
from .clock import monotonic
from .connection import Connection
from .faults import Faults
from .holding import Holding
from .identity.base import Identify
from .identity.scope_user import ScopeUser
from .model import Region, Slot, UserContext
from .perloop import PerLoop
from .plugin_invalidation import PluginInvalidation
from .principal import Identity, as_identity
from .pseudonym import Pseudonyms
from .refusals import Refusals
from .reports import Resolution, WarmReport
from .secret import Secret
from .snapshot import snapshot
from .sources.base import ContextSource
from .stats import Stats
from .tracebacks import sheltered
from .watching import Watching
from .zones.base import ZoneSnapshot, ZoneSource, zones_for_user_context

if TYPE_CHECKING:
    from .cache.redis.servers.driver import Client

T = TypeVar("T")


class PluginCore(PluginInvalidation, Generic[T]):
    """Resolves, caches and invalidates users' contexts; everything is validated here and nothing is opened yet.

    It opens by itself where a request needs it, with the lifespan of an app inside `UserContextMiddleware`, or inside
    `async with plugin`.

    Args:
        source: where contexts come from on a miss.
        identify: finds out who asks; None is `ScopeUser()`.
        zones: where zones come from; None leaves contexts without them.
        redis: a URL or a ready `redis.asyncio` client; None keeps everything in memory.
        redis_options: times and sizes for Redis; None takes the defaults of `RedisOptions`.
        policy: how long contexts live, and how many; None takes the defaults of `CachePolicy`.
        context_type: what the source gives, None for UserContext; values from Redis are decoded strictly as this type.
        admin_guard: who may use the admin, `any_of` several ways; None keeps it closed.
        encryption_keys: seal the values in Redis; the first one seals, each of them opens. A key is 32 random bytes in
            base64. Needs the extra `encryption`.
        name: keeps several plugins apart, in scopes and in Redis.
        namespace: keeps deployments that share one Redis apart, such as staging and production; needed with `redis`
            where the source has no `label` that tells its database from others.
        zones_for: joins the zones in force into a context; needed with `zones` where the contexts are not UserContext.
        zones_ttl: seconds after which zones are read again.
        log_key: names users in logs by a keyed hash that `ctxmiddleware hash` computes too; None makes one up.
        is_active: whether a context's user may act; the default reads `employee.is_active` of a UserContext.
        copy: gives each request a copy of its own where contexts can be changed; with False requests share them, and
            what one changes the others see.
        outage: exceptions of your source's driver that mean it cannot be reached, such as
            `sqlalchemy.exc.OperationalError`: what is known is served stale, or the answer is a 503. `OSError` and
            `TimeoutError` mean that already.
        clock: monotonic seconds, for tests that move them.

    Raises:
        ConfigurationError: something cannot work; every fault that can be seen is named.
    """

    @sheltered
    def __init__(
        self,
        *,
        source: ContextSource[T],
        identify: Identify | None = None,
        zones: ZoneSource | None = None,
        redis: str | Secret | Client | None = None,
        redis_options: RedisOptions | None = None,
        policy: CachePolicy | None = None,
        context_type: type[T] | None = None,
        admin_guard: AdminGuard | None = None,
        encryption_keys: Iterable[str | Secret] = (),
        log_key: str | Secret | None = None,
        name: str = "default",
        namespace: str | None = None,
        zones_for: Callable[[T, ZoneSnapshot], T] | None = None,
        zones_ttl: float = 86400.0,
        is_active: Callable[[T], bool] | None = None,
        copy: bool = True,
        outage: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        kind: type[Any] = UserContext if context_type is None else context_type
        is_reference = kind is UserContext
        join: Callable[[Any, ZoneSnapshot], Any] | None = zones_for
        if join is None and is_reference:
            join = zones_for_user_context
        faults = Faults(checks.word_faults("name", name))
        faults.add(*checks.source_faults(source), *checks.identify_faults(identify))
        faults.add(*checks.zones_faults(zones, zones_ttl, join), *checks.options_faults("policy", policy, CachePolicy))
        faults.add(*checks.options_faults("redis_options", redis_options, RedisOptions))
        faults.add(*checks.is_active_faults(is_active), *checks.guard_faults(admin_guard))
        faults.add(*checks.naming_faults(identify or ScopeUser(), source))
        faults.add(*checks.redis_faults(redis))
        if namespace is not None:
            faults.add(*checks.word_faults("namespace", namespace))
        elif redis is not None:
            faults.add(*checks.label_faults(source))
        faults.add(*checks.outage_faults(outage))
        seal = faults.built(lambda: wiring.seal_of(encryption_keys))
        pseudonyms = faults.built(lambda: Pseudonyms(log_key))
        faults.refuse()
        assert pseudonyms is not None  # noqa: S101 - what was not built was refused
        self.pseudonyms: Final = pseudonyms
        self.name = name
        self.scope_key = scope_key(name)
        self.identify: Identify = identify if identify is not None else ScopeUser()
        default: Callable[[Any], bool] = _is_employed if is_reference else _is_anybody
        self.is_active: Callable[[T], bool] = is_active or default
        self._redis: Secret | Client | None = Secret(redis) if isinstance(redis, str) else redis
        self._assemble = partial(
            wiring.assemble,
            namespace=wiring.namespace_of(name, namespace),
            source=source,
            zones=zones,
            zones_ttl=zones_ttl,
            zones_for=join,
            redis_options=redis_options,
            policy=policy or CachePolicy(),
            context_type=kind,
            seal=seal,
            # What many users have in common; their own rows are theirs alone.
            shared_rows=(Slot, Region) if is_reference else (),
            copy_mutable=copy,
            outage=outage,
            clock=clock,
            pseudonyms=pseudonyms,
        )
        self._source = source
        self._clock = clock
        self._begin()
        self._loop: PerLoop[wiring.Assembly[T]] = PerLoop(f"ContextPlugin {name!r}", self._open)
        self._watching = Watching(self._resolver, self._assembly.cache, self._loop.ensure)
        self.admin: Final = AdminApp(self, admin_guard, self.pseudonyms)
        forking.register(self)

    def __repr__(self) -> str:
        return f"<ContextPlugin {self.name!r}: {self._assembly.cache.memory!r}>"

    def _begin(self) -> None:
        self._assembly: wiring.Assembly[T] = self._assemble(redis=self._redis)
        self._resolver = self._assembly.resolver
        self.refusals = Refusals(self._assembly.counters, self._clock)
        self._invalidator = self._resolver.invalidator
        redis = self._assembly.redis
        self._holding = Holding(
            self._assembly.cache, self._invalidator, nullcontext() if redis is None else redis.opened
        )
        self._started_at = datetime.now(UTC)

    def begin_anew(self) -> None:
        """Begin with empty caches in a forked process: it receives neither invalidations nor loads of its parent.

        What its parent has opened stays the parent's.
        """
        self._redis = wiring.redis_after_fork(self._redis)
        self._begin()
        self._watching.turn_to(self._resolver, self._assembly.cache)

    async def resolve(self, email_or_identity: str | Identity) -> Resolution[T]:
        """Return what is known of a user, from the nearest place that knows it.

        Args:
            email_or_identity: an address, or an Identity where users have subjects or tenants.

        Raises:
            SourceUnavailable: nothing is known and the source cannot answer.
            SourceError: the source answered with something that is not a context.
            ValueError: the address is empty.
        """
        identity = as_identity(email_or_identity)
        if self._loop.is_open():
            return await self._resolver.resolve(identity)
        async with self._loop.using():
            return await self._resolver.resolve(identity)

    def watch(
        self, email_or_identity: str | Identity, *, connection: Connection | None = None
    ) -> AsyncIterator[Resolution[T]]:
        """Return what is known of a user, and again whenever that has changed: for websockets and streams.

        `async for resolution in plugin.watch(identity)` begins with what is in force. Another one comes where the
        context, zones included, is no longer equal (`==`): after an invalidation, by whichever process, and at the
        latest after the policy's `ttl`, or `untrusted_ttl` where other processes cannot be heard. Access was revoked
        where `resolution.context` is None, or not `plugin.is_active(resolution.context)`. While the source is down
        what was told stays in force for `stale_for`; a resolution may be `stale` itself.

        It ends when the identity expires, or the connection ends, and needs no closing. After an error, which it also
        raises where the plugin is closed under it, it may be asked again, and begins anew.

        Args:
            email_or_identity: an address, or an Identity where users have subjects or tenants, or it expires.
            connection: the accepted websocket, or the request that a stream answers. What its client sends is dropped;
                a handler that also listens ends by itself (`examples/websocket.py`). Without it a handler stays until
                the user changes, long after the client has gone.

        Raises:
            SourceUnavailable: nothing may be served any more and the source cannot answer: the user is to be refused.
            SourceError: the source answered with something that is not a context.
            ValueError: the address is empty.
            TypeError: nothing can be received from the connection.
        """
        return self._watching.watch(as_identity(email_or_identity), connection)

    def peek(self, identity: Identity) -> Resolution[T] | None:
        """Return what memory may answer by itself, without an await, or None where `resolve` has to be asked."""
        return self._resolver.peek(identity)

    def _opened(self) -> AbstractAsyncContextManager[object]:
        return self._loop.using()

    async def warm(self, users: Iterable[str | Identity]) -> WarmReport:
        """Resolve many users ahead of their requests, a few at a time.

        Args:
            users: addresses or identities; one that cannot be resolved is counted and logged, never raised.

        Raises:
            ValueError: an address is empty.
        """
        identities = [as_identity(each) for each in users]
        async with self._loop.using():
            return await self._resolver.warm(identities)

    def stats(self) -> Stats:
        """Return a snapshot of this process's counters."""
        return snapshot(self.name, self._started_at, cast("wiring.Assembly[object]", self._assembly))

    def count(self, outcome: str) -> None:
        """Count what became of a request."""
        self._assembly.counters.add("request", outcome)

    async def zones_loaded(self) -> None:
        """Wait until zones have been read once; returns at once where the plugin has none."""
        async with self._loop.using():
            if self._assembly.zones is not None:
                await self._assembly.zones.wait_loaded()

    async def __aenter__(self) -> Self:
        await self._loop.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._loop.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[wiring.Assembly[T]]:
        assembly = self._assembly
        async with AsyncExitStack() as stack:
            if isinstance(self._source, AbstractAsyncContextManager):
                await stack.enter_async_context(self._source)
            if assembly.redis is not None:
                await stack.enter_async_context(assembly.redis.opened)
            await stack.enter_async_context(assembly.cache.flights.opened)
            async with anyio.create_task_group() as tasks:
                if assembly.zones is not None:
                    tasks.start_soon(assembly.zones.run)
                if assembly.cache.warming is not None:
                    tasks.start_soon(assembly.cache.warming.run)
                if assembly.redis is not None:
                    tasks.start_soon(assembly.cache.keep_watchers_asking)
                tasks.start_soon(self._holding.end_orphans)
                try:
                    with self._watching.open(), self._blocking.serving():
                        yield assembly
                finally:
                    tasks.cancel_scope.cancel()


def _is_employed(context: UserContext) -> bool:
    return context.employee.is_active


def _is_anybody(context: object) -> bool:  # noqa: ARG001 - the shape of is_active
    return True
