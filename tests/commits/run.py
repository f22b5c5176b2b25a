"""A run: the servers, two instances of the plugin, and so many users at the same time."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
import psycopg

from ctxmiddleware import CachePolicy, ContextPlugin
from ctxmiddleware.cache.redis.options import RedisOptions
from examples.servers import Postgres, Standby, Valkey
from tests.waiting import eventually_async

from .database import SCHEMA, Account, Accounts, Pool
from .history import History, Load
from .transaction import Around, Story, changing

INSTANCES = 2
# As long as a busy machine takes: an instance that has not confirmed an invalidation is bound by other times.
_PATIENT = RedisOptions(timeout=10.0, pool_wait=10.0, invalidation_wait=10.0, confirm_timeout=10.0)
_WRITERS = 60
_READERS = 24


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Args:
        interleavings: how many, each of a user of its own.
        seed: decides what is done; when it happens is the machine's to decide, too.
        at_once: how many run at the same time.
        settle: seconds that the plugin is given, and the checker too unless it has its own.
        checked_settle: seconds that the checker is given.
        delay: seconds after which the standby applies a COMMIT; None where there is no standby.
        lag: seconds after an invalidation in which the source reads the primary alone.
        blocks: the share of users whose transactions stand in a `changing` block.
        around: the block.
        tells_source: whether the source receives invalidations.
        first_fault: whether no further interleaving begins after the first fault.
        longest: seconds after which the run is broken off.
    """

    interleavings: int = 10_000
    seed: int = 1
    at_once: int = 100
    settle: float = 0.2
    checked_settle: float | None = None
    delay: float | None = None
    lag: float = 0.8
    blocks: float = 0.5
    around: Around = changing
    tells_source: bool = True
    first_fault: bool = False
    longest: float = 3600.0


@dataclass
class Outcome:
    """The result of a run: counts, and the first histories that hold a fault."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[str, History, list[str]]] = field(default_factory=list)

    def add(self, story: Story) -> None:
        """Judge one history."""
        history = story.history
        self.counts.update(
            {
                "interleavings": 1,
                "commits": len(history.commits),
                "invalidations": len(history.invalidations),
                "blocks": len(history.blocks),
                "reads": len(history.reads),
                "loads": len(history.loads),
                "loads from the standby": sum(load.from_standby for load in history.loads),
                "reads bound by settle alone": history.settled(),
                "reads in a block after its COMMIT": history.held(),
                "reads refused": story.unavailable,
            }
        )
        faults = history.faults()
        if faults and history.overtaxed():
            # The standby was further behind than `lag` allows: no fault of the cache.
            self.counts["not judged, the standby being late"] += 1
        elif faults and history.unconfirmed:
            # An instance without a beat for LIVE_MS is not waited for: its event loop had no time.
            self.counts["not judged, an instance being late to confirm"] += 1
        elif faults:
            self.counts["faults"] += len(faults)
            if len(self.broken) < 3:
                self.broken.append((story.user, history, faults))


@contextmanager
def servers(options: Options) -> Iterator[tuple[Valkey, str, str | None]]:
    """Start the servers, and give Redis, the address of the primary, and that of the standby."""
    with ExitStack() as stack:
        valkey = stack.enter_context(Valkey.start())
        primary = stack.enter_context(Postgres.start())
        if options.delay is None:
            yield valkey, primary.dsn(), None
        else:
            yield valkey, primary.dsn(), stack.enter_context(Standby.start(primary, delay=options.delay)).dsn()


async def run(
    options: Options,
    valkey: Valkey,
    primary: str,
    standby: str | None,
    progress: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Run all interleavings and return what was found.

    Args:
        options: what is run.
        valkey: the server that the instances share.
        primary: the address of the primary.
        standby: the address of the standby; None where there is none.
        progress: called after each interleaving.
    """
    first = _prepare(primary, options)
    histories: dict[str, History] = {}
    outcome = Outcome()
    async with _instances(options, valkey, primary, standby, histories) as (plugins, writers):
        if standby is not None:
            await eventually_async(lambda: _has_all(standby, len(first)))
        numbers = iter(range(options.interleavings))

        async def work() -> None:
            for number in numbers:
                if options.first_fault and outcome.broken:
                    return
                story = _story(options, number, first, plugins, writers)
                histories[story.user] = story.history
                await story.run()
                outcome.add(story)
                del histories[story.user]
                progress(outcome)

        with anyio.fail_after(options.longest):
            async with anyio.create_task_group() as tasks:
                for _ in range(options.at_once):
                    tasks.start_soon(work)
    return outcome


def _address(number: int) -> str:
    return f"user{number}@example.org"


def _prepare(primary: str, options: Options) -> Mapping[str, int]:
    """Create the rows of the users that have one from the beginning, and return their versions."""
    rng = random.Random(options.seed)
    users = [_address(number) for number in range(options.interleavings) if rng.random() < 0.7]
    with psycopg.connect(primary, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS accounts; DROP SEQUENCE IF EXISTS versions")
        connection.execute(SCHEMA)
        connection.execute(
            "INSERT INTO accounts SELECT email, nextval('versions') FROM unnest(%s::text[]) AS email", [users]
        )
        return dict(connection.execute("SELECT email, version FROM accounts").fetchall())


def _has_all(standby: str, count: int) -> bool:
    try:
        with psycopg.connect(standby, autocommit=True) as connection:
            row = connection.execute("SELECT count(*) FROM accounts").fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    return row == (count,)


@asynccontextmanager
async def _instances(
    options: Options, valkey: Valkey, primary: str, standby: str | None, histories: Mapping[str, History]
) -> AsyncIterator[tuple[list[ContextPlugin[Account]], Pool]]:
    def record(user: str, load: Load) -> None:
        # A refresh that nothing waits for may end after the interleaving.
        if user in histories:
            histories[user].loads.append(load)

    async with AsyncExitStack() as stack:

        async def pool(dsn: str, size: int) -> Pool:
            return await stack.enter_async_context(Pool(dsn, size))

        plugins = []
        for number in range(INSTANCES):
            replica = None if standby is None else await pool(standby, _READERS)
            rng = random.Random(f"{options.seed} {number}")
            source = Accounts(number, await pool(primary, _READERS), replica, options.lag, rng, record)
            if not options.tells_source:
                source.invalidated = lambda identity, *, ago: None  # type: ignore[method-assign]  # a mutant
            plugin = ContextPlugin(
                source=source,
                redis=valkey.url,
                redis_options=_PATIENT,
                policy=CachePolicy(settle=options.settle),
                context_type=Account,
            )
            plugins.append(await stack.enter_async_context(plugin))
        await eventually_async(lambda: all(_is_heard(plugin) for plugin in plugins))
        yield plugins, await pool(primary, _WRITERS)


def _is_heard(plugin: ContextPlugin[Account]) -> bool:
    seen = plugin.stats().redis
    return seen is not None and seen.channel == "heard"


def _story(
    options: Options, number: int, first: Mapping[str, int], plugins: list[ContextPlugin[Account]], writers: Pool
) -> Story:
    rng = random.Random(f"{options.seed} story {number}")
    user = _address(number)
    settle = options.settle if options.checked_settle is None else options.checked_settle
    lag = 0.0 if options.delay is None else options.lag
    return Story(
        user=user,
        history=History(settle, lag, first.get(user, 0)),
        plugins=plugins,
        primary=writers,
        rng=rng,
        span=3 * settle + lag,
        around=options.around if rng.random() < options.blocks else None,
        is_new=user not in first,
    )


def printed(seconds: float, outcome: Outcome, total: int) -> str:
    """Return a line that says how far a run is."""
    counts = outcome.counts
    return (
        f"{counts['interleavings']:>7} of {total}, {seconds:5.1f} s, {counts['reads']} reads, {counts['faults']} faults"
    )


class Progress:
    """Prints a line every few seconds.

    Args:
        total: interleavings in all.
        write: takes the line.
        every: seconds between lines.
    """

    def __init__(self, total: int, write: Callable[[str], None], every: float = 5.0) -> None:
        self._total = total
        self._write = write
        self._every = every
        self._began = self._next = time.monotonic()

    def __call__(self, outcome: Outcome) -> None:
        """Print the line, where it is time for one."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            self._write(printed(now - self._began, outcome, self._total))
