"""Where contexts come from with Supabase: the function or the tables, the replica or the primary."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias

import anyio

from ..breaker import Health, State
from ..errors import ConfigurationError, SourceError, SourceMisconfigured, SourceUnavailable
from ..model import UserContext
from ..principal import Identity, Kind
from ..project import Project
from ..secret import Secret
from ..tracebacks import sheltered
from .absence import Absence
from .addresses import EmailSearch, is_storable
from .answers import FunctionMissing
from .arguments import faults_of
from .base import BatchSource, Loaded
from .endpoint import Server
from .exchange import HttpClient, OutOfTime, is_for_everybody
from .freshly import FreshlyInvalidated
from .legacy import read_tables
from .load import Load
from .paths import Paths
from .pool import PoolOptions
from .postgrest import BATCH_FUNCTION, FUNCTION, batch_call, batches, function_call
from .rows import context_from, context_or_error, contexts_from
from .singly import AT_ONCE, in_half_the_time, singly
from .transport import Transport
from .way_out import migration_note

# How many of a batch are loaded at a time where there is no function for many.
ONE_BY_ONE_AT_ONCE: Final = AT_ONCE
# How many pieces of a batch are read from a replica at a time, whose URLs hold few long addresses each.
PIECES_AT_ONCE: Final = 4
_AHEAD_AT_MOST: Final = 0.2
_NOT_BY_EMAIL: Final = (
    "SupabaseSource finds users by their e-mail address, and this identity is keyed by its subject: let `identify` "
    "give addresses, or write a source of your own"
)


Answer: TypeAlias = "Loaded[UserContext] | SourceError"
Answers: TypeAlias = "dict[str, Answer]"
"""What became of each normalised address of a batch."""


class SupabaseSource(BatchSource[UserContext]):
    """Loads contexts from Supabase, or any PostgREST behind its prefix and key check.

    One call of `get_user_context_by_email`, or of `get_user_contexts_by_emails` for many; where they are not installed,
    four table queries a user that yield the same context. A passing fault is retried once; a way that keeps failing is
    left alone for a while. Users are found by their e-mail address, the same ones in every tenant. An async context
    manager, built without I/O.

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
        sleep: waits so many seconds before a retry.

    Raises:
        ConfigurationError: a value that cannot be right; all of them are named at once.
    """

    finds_by: Final[tuple[Kind, ...]] = ("email",)

    @sheltered
    def __init__(
        self,
        url: str | Project,
        key: Secret | str,
        *,
        schema: str = "hr",
        read_url: str | Project | None = None,
        pool: PoolOptions | None = None,
        client: HttpClient | None = None,
        replica_lag: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        secret = key if isinstance(key, Secret) else Secret(key)
        # Error trackers record the locals of the frames that raised.
        del key
        faults = faults_of(url=url, key=secret, schema=schema, read_url=read_url, replica_lag=replica_lag)
        if faults:
            raise ConfigurationError(*faults)
        self._primary = Server(Project.parse(url).rest, schema, secret)
        replica = None if read_url is None else Project.parse(read_url, "SUPABASE_READ_URL")
        self._replica = None if replica is None else Server(replica.rest, schema, secret, reads_only=True)
        servers = [self._primary] if self._replica is None else [self._primary, self._replica]
        tls = any(server.root.startswith("https:") for server in servers)
        self._transport = Transport(pool or PoolOptions(), client, tls=tls, clock=clock)
        self._fresh = FreshlyInvalidated(replica_lag, clock)
        note = migration_note(schema)
        self._absence = Absence(FUNCTION, "the tables are read instead, at four requests a load", clock, note)
        self._batch_absence = Absence(BATCH_FUNCTION, "users are loaded one by one instead", clock, note)
        self._search = EmailSearch(clock)
        self._paths = Paths(("rpc", "batch", "tables"), clock)
        self._wall_clock = wall_clock
        self._rng = rng or random.SystemRandom()  # forked processes must not pause for equal times
        self._sleep = sleep

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

    @property
    def replica_lag(self) -> float:
        """Seconds for which the replica may be behind; 0 where there is none."""
        return self._fresh.behind if self._replica is not None else 0.0

    def settle(self, seconds: float) -> None:
        """Ask the primary for so much longer after an invalidation, whose transaction may still commit."""
        self._fresh.settle(seconds)

    async def fetch(self, identity: Identity) -> Loaded[UserContext]:
        """Return the user's context with its origin, `rpc` or `legacy`; its value is None for an unknown user.

        Args:
            identity: keyed by an e-mail address.

        Raises:
            SourceUnavailable: a passing fault, with the seconds after which another try is worth it, where known.
            SourceMisconfigured: an operator must mend the key, a grant, the schema or the function; or the identity is
                keyed by a subject.
            SourceError: a row does not fit, or the answer is not this user's context.
        """
        return await self._fetch(_email_of(identity))

    async def _fetch(self, email: str) -> Loaded[UserContext]:
        if not is_storable(email):
            return Loaded(None)
        load = self._load(self._server_for(email))
        if not self._absence.remembered:
            call = function_call(email)
            answer = await self._paths.through("rpc", lambda: load.ask(call, function=FUNCTION), who=email)
            self._absence.seen(absent=isinstance(answer, FunctionMissing))
            if not isinstance(answer, FunctionMissing):
                return Loaded(context_from(answer.body, email), origin="rpc")
        context = await self._paths.through("tables", lambda: read_tables(load, email, self._search), who=email)
        return Loaded(context, origin="legacy")

    async def fetch_many(self, identities: Sequence[Identity]) -> dict[Identity, Answer]:
        """Return each user's context as `fetch` does, or the error that is that user's alone.

        Args:
            identities: keyed by e-mail addresses.

        Raises:
            SourceUnavailable: a passing fault, with the seconds after which another try is worth it, where known.
            SourceMisconfigured: an operator must mend the key, a grant, the schema or the function.
            SourceError: the answer is no answer.
        """
        emails = {identity: identity.name for identity in identities if identity.key == "email"}
        asked = [email for email in dict.fromkeys(emails.values()) if is_storable(email)]
        answers = {} if self._batch_absence.remembered else await self._in_batches(asked)
        answers |= await self._one_by_one([email for email in asked if email not in answers])
        found: dict[Identity, Answer] = dict.fromkeys(identities, SourceMisconfigured(_NOT_BY_EMAIL))
        return found | {identity: answers.get(email, Loaded(None)) for identity, email in emails.items()}

    def path_states(self) -> Mapping[str, State]:
        """Return whether each way to the database is open to calls."""
        return self._paths.states()

    def path_health(self) -> Mapping[str, Health]:
        """Return what the calls so far have shown of each way to the database."""
        return self._paths.health()

    async def _in_batches(self, asked: Sequence[str]) -> Answers:
        """Return what the function for many gave, up to where the rest had better go one by one."""
        servers = {email: self._server_for(email) for email in asked}
        pieces = [
            (server, piece)
            for server in dict.fromkeys(servers.values())
            for piece in batches(server, [email for email in asked if servers[email] is server])
        ]
        found: Answers = {}
        failed: list[SourceError] = []
        waiting = iter(pieces)
        goes_on = True

        async def work() -> None:
            nonlocal goes_on
            while goes_on and (next_one := next(waiting, None)) is not None:
                try:
                    answer = await self._batch(*next_one)
                except SourceError as error:
                    goes_on = False
                    if not self._may_go_one_by_one(error):
                        failed.append(error)
                else:
                    goes_on = goes_on and answer is not None
                    found.update(answer or {})

        async with anyio.create_task_group() as tasks:
            for _ in range(min(PIECES_AT_ONCE, len(pieces))):
                tasks.start_soon(work)
        if failed and not found:
            raise failed[0]
        # What has been answered is kept; the others are told, or asked for one by one, by what kept them from it.
        if failed and is_for_everybody(failed[0]):
            return dict.fromkeys(asked, failed[0]) | found
        return found

    def _may_go_one_by_one(self, error: SourceError) -> bool:
        # A batch that ran out of time leaves none to halve it again and again; and while the way for many is left alone
        # or tried, nobody waits for it to be well whom the way for one can answer.
        return isinstance(error, OutOfTime) or (
            isinstance(error, SourceUnavailable) and self._paths.states()["batch"] != "closed"
        )

    async def _batch(self, server: Server, emails: Sequence[str]) -> Answers | None:
        load, call = self._load(server), batch_call(emails)
        answer = await self._paths.through(
            "batch", lambda: in_half_the_time(lambda: load.ask(call, function=BATCH_FUNCTION)), many=True
        )
        self._batch_absence.seen(absent=isinstance(answer, FunctionMissing))
        if isinstance(answer, FunctionMissing):
            return None
        contexts = contexts_from(answer.body)
        return {email: context_or_error(contexts.get(email), email) for email in emails}

    async def _one_by_one(self, asked: Sequence[str]) -> Answers:
        found: Answers = {}
        late: SourceError = OutOfTime("the source did not answer in time")
        left = anyio.current_effective_deadline() - anyio.current_time()
        # Cancelled from without, it would take along what was answered.
        with anyio.move_on_after(left - min(_AHEAD_AT_MOST, left / 10)):
            # As many as are under way, and no answer among them: the next ones would wait as long for nothing.
            late = await singly(asked, self._fetch, found, in_vain=ONE_BY_ONE_AT_ONCE, errors=SourceError) or late
        return dict.fromkeys(asked, late) | found

    def invalidated(self, identity: Identity | None, *, ago: float = 0.0) -> None:
        """Load a user from the primary for the rest of `replica_lag` after an invalidation.

        Args:
            identity: the user, in any tenant, or None for all users.
            ago: seconds since the invalidation; more than 0 where another process made it.
        """
        if self._replica is None:
            return
        # An address that no table can hold is never loaded, and may be as long as memory.
        if identity is None or (identity.key == "email" and is_storable(identity.name)):
            self._fresh.note(None if identity is None else identity.name, ago)

    def _server_for(self, email: str) -> Server:
        if self._replica is None or self._fresh.is_noted(email):
            return self._primary
        return self._replica

    def _load(self, first: Server) -> Load:
        return Load(
            self._transport, first, self._primary, rng=self._rng, wall_clock=self._wall_clock, sleep=self._sleep
        )


def _email_of(identity: Identity) -> str:
    if identity.key != "email":
        raise SourceMisconfigured(_NOT_BY_EMAIL)
    return identity.name
