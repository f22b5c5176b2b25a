"""Where contexts come from with Supabase: the function or the tables, the replica or the primary."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from ..address import normalise
from ..errors import ConfigurationError
from ..model import UserContext
from ..secret import Secret
from .addresses import spellings
from .answers import FunctionAbsent
from .arguments import faults_of
from .base import ContextSource, Loaded
from .endpoint import Server, api_root
from .exchange import HttpClient
from .legacy import read_tables
from .load import Load
from .pool import PoolOptions
from .postgrest import FUNCTION, function_call
from .rows import context_from
from .transport import Transport

logger = logging.getLogger("ctxmiddleware.sources")

# How long a missing function is believed to be missing: somebody may be installing it now.
ABSENCE_LASTS: Final = 60.0
# How long nobody found by the tables stays unknown. They are searched for the spelling that was sent and the normalised
# one, but what is remembered is remembered for every spelling: an employee stored as "Bob@Example.com", whom somebody
# asked for as "bob@example.com", must not be locked out for the whole time unknown users are remembered.
LEGACY_NEGATIVE_TTL: Final = 2.0
_MOST_INVALIDATED: Final = 10_000


class SupabaseSource(ContextSource[UserContext]):
    """Loads contexts from Supabase, or any PostgREST behind its prefix and key check.

    One call of `get_user_context_by_email`; where that is not installed, four table queries that yield the same
    context. A passing fault is retried once. An async context manager, built without I/O.

    Args:
        url: the project's address (SUPABASE_URL).
        key: `sb_secret_...` or the legacy service_role JWT (SUPABASE_KEY).
        schema: the schema of function and tables (SUPABASE_SCHEMA).
        read_url: a read replica's address, asked first and by GET only (SUPABASE_READ_URL).
        pool: limits of the HTTP connections, and timeouts.
        client: a ready `httpx2.AsyncClient` or `httpx.AsyncClient` to send with; it is never closed here.
        replica_lag: seconds after an invalidation in which the primary is asked, for the replica may not know yet.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch, for a Retry-After that is a date.
        rng: scatters the pauses before a retry.

    Raises:
        ConfigurationError: a value that cannot be right; all of them are named at once.
    """

    def __init__(
        self,
        url: str,
        key: Secret | str,
        *,
        schema: str = "hr",
        read_url: str | None = None,
        pool: PoolOptions | None = None,
        client: HttpClient | None = None,
        replica_lag: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        secret = key if isinstance(key, Secret) else Secret(key)
        faults = faults_of(
            url=url,
            key=secret,
            schema=schema,
            read_url=read_url,
            pool=pool,
            client=client,
            replica_lag=replica_lag,
        )
        if faults:
            raise ConfigurationError(*faults)
        self._primary = Server(api_root(url), schema, secret)
        self._replica = Server(api_root(read_url), schema, secret, reads_only=True) if read_url else None
        servers = [self._primary] if self._replica is None else [self._primary, self._replica]
        tls = any(server.root.startswith("https:") for server in servers)
        self._transport = Transport(pool or PoolOptions(), client, tls=tls)
        self._fresh = _FreshlyInvalidated(replica_lag, clock)
        self._absence = _Absence(clock)
        self._wall_clock = wall_clock
        self._rng = rng or random.Random()  # noqa: S311 - it scatters pauses

    def __repr__(self) -> str:
        replica = "" if self._replica is None else f", replica {self._replica.root}"
        return f"<SupabaseSource {self._primary.root}{replica}, schema {self._primary.schema}>"

    @property
    def label(self) -> str:
        """Which database these contexts are of: what was cached from another is not taken for this one's."""
        return f"{self._primary.root} {self._primary.schema}"

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    async def fetch(self, email: str) -> Loaded[UserContext]:
        """Return the user's context with its origin, `rpc` or `legacy`; its value is None for an unknown user.

        That a user is unknown is to be remembered for a moment only where the tables were read: they do not find an
        address that is stored in another spelling than the one asked for.

        Args:
            email: the address as it was asked for.

        Raises:
            SourceUnavailable: a passing fault, with the seconds after which another try is worth it, where known.
            SourceMisconfigured: an operator must mend the key, a grant, the schema or the function.
            SourceError: a row does not fit, or the answer is not this user's context.
        """
        asked = spellings(email)
        if not asked:
            return Loaded(None)
        load = self._load(email)
        if not self._absence.remembered:
            answer = await load.ask(function_call(asked[0]), function=FUNCTION)
            self._absence.seen(absent=isinstance(answer, FunctionAbsent))
            if not isinstance(answer, FunctionAbsent):
                return Loaded(context_from(answer.body, email), origin="rpc")
        context = await read_tables(load, asked)
        return Loaded(context, origin="legacy", ttl=LEGACY_NEGATIVE_TTL if context is None else None)

    def invalidated(self, email: str | None, *, ago: float = 0.0) -> None:
        """Take note of an invalidation: for the rest of `replica_lag` that user is loaded from the primary.

        Args:
            email: whose context was invalidated, or None for everybody's.
            ago: seconds since it happened; more than none where another process did it.
        """
        # What is nobody's address is never loaded, and may be as long as memory.
        if self._replica is not None and (email is None or spellings(email)):
            self._fresh.note(email, ago)

    def _load(self, email: str) -> Load:
        behind = self._replica is None or self._fresh.is_noted(email)
        first = self._primary if behind or self._replica is None else self._replica
        return Load(self._transport, first, self._primary, rng=self._rng, wall_clock=self._wall_clock)


class _Absence:
    """Whether the function was found missing a short while ago; tells of each change once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._absent = False
        self._until = 0.0

    @property
    def remembered(self) -> bool:
        return self._absent and self._clock() < self._until

    def seen(self, *, absent: bool) -> None:
        if absent:
            self._until = self._clock() + ABSENCE_LASTS
        changed, self._absent = absent is not self._absent, absent
        if not changed:
            return
        if absent:
            logger.warning(
                "the function %s is not installed: the tables are read instead, at four requests a load; "
                "`ctxmiddleware sql show` prints the migration that installs it",
                FUNCTION,
                extra={"function": FUNCTION},
            )
        else:
            logger.info("the function %s is installed: it is called again", FUNCTION, extra={"function": FUNCTION})


class _FreshlyInvalidated:
    """Whose context was invalidated within the lag of the replica; bounded, and rather for too many than too few."""

    def __init__(self, lag: float, clock: Callable[[], float]) -> None:
        self._lag = lag
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._everybody_until = 0.0

    def note(self, email: str | None, ago: float) -> None:
        now = self._clock()
        until = now + self._lag - max(ago, 0.0)
        if until <= now:
            return
        with self._lock:
            self._forget(now)
            if email is None:
                self._everybody_until = max(self._everybody_until, until)
            elif len(self._until) < _MOST_INVALIDATED:
                self._extend(normalise(email), until)
            else:
                # Later than any that is noted, all of which it stands for.
                self._everybody_until = now + self._lag
                self._until.clear()

    def _extend(self, email: str, until: float) -> None:
        if until > self._until.get(email, -math.inf):
            # Taken out first: the oldest must stay in front.
            self._until.pop(email, None)
            self._until[email] = until

    def is_noted(self, email: str) -> bool:
        now = self._clock()
        return now < self._everybody_until or now < self._until.get(normalise(email), now)

    def _forget(self, now: float) -> None:
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now:
                return
            del self._until[oldest]
