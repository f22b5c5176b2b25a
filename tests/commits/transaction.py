"""The acts of one user: transactions of every shape, invalidations around them, and reads at random moments."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import anyio

from ctxmiddleware import ContextPlugin, SourceUnavailable
from ctxmiddleware.changing import Changing

from .database import Account, Connection, Pool, write
from .history import Block, Commit, History, Read, Span

# A `changing` block, or what a mutant has in its place.
Around = Callable[[ContextPlugin[Account], str], AbstractAsyncContextManager[Any]]


class RolledBack(Exception):
    """Ends a transaction, and the block around it, without a COMMIT."""


@dataclass
class Story:
    """One user's interleaving.

    Args:
        user: the address.
        history: is given what happens.
        plugins: the instances.
        primary: where transactions run.
        rng: decides what happens when.
        span: seconds over which its reads are strewn.
        around: the block around transactions; None where they are invalidated by calls.
        is_new: whether the user's row is created by a transaction.
    """

    user: str
    history: History
    plugins: Sequence[ContextPlugin[Account]]
    primary: Pool
    rng: random.Random
    span: float
    around: Around | None
    is_new: bool
    unavailable: int = 0

    async def run(self) -> None:
        """Let it happen, and read at its end what every instance then has."""
        if self.rng.random() < 0.7:
            for number in range(len(self.plugins)):
                await self._read(number)
        async with anyio.create_task_group() as tasks:
            for _ in range(self.rng.choice((1, 1, 2))):
                tasks.start_soon(self._later, self._change)
            for _ in range(self.rng.randint(4, 10)):
                tasks.start_soon(self._later, self._read_one)
        await anyio.sleep(self.history.settle + self.rng.choice((0, self.history.lag)))
        for number in range(len(self.plugins)):
            await self._read(number)

    async def _later(self, act: Callable[[], Awaitable[None]]) -> None:
        await anyio.sleep(self.rng.uniform(0, self.span if act == self._read_one else self.span / 3))
        await act()

    async def _read_one(self) -> None:
        await self._read(self.rng.randrange(len(self.plugins)))

    async def _read(self, number: int) -> None:
        began = time.monotonic()
        try:
            found = (await self.plugins[number].resolve(self.user)).context
        except SourceUnavailable:
            self.unavailable += 1
            return
        version = 0 if found is None else found.version
        self.history.reads.append(Read(began, time.monotonic(), number, version))

    async def _invalidate(self, chance: float) -> None:
        if self.around is not None or self.rng.random() > chance:
            return
        began = time.monotonic()
        report = await self.rng.choice(self.plugins).invalidate(self.user)
        self.history.unconfirmed += len(report.silent)
        self.history.invalidations.append(Span(began, time.monotonic()))

    async def _change(self) -> None:
        try:
            async with self.primary.connection() as connection, self._block():
                await self._transaction(connection)
                if self.around is not None:
                    await self._pause()
        except RolledBack:
            await self._invalidate(0.5)
        else:
            await self._invalidate(0.4)

    def _block(self) -> AbstractAsyncContextManager[Any]:
        if self.around is None:
            return nullcontext()
        return Recorded(self.around(self.rng.choice(self.plugins), self.user), self.history)

    async def _transaction(self, connection: Connection) -> None:
        await connection.execute("BEGIN")
        version = 0
        try:
            await self._invalidate(0.3)
            version = await self._write(connection)
            await self._pause()
            await self._invalidate(0.6)
            await self._pause()
            if self.rng.random() < 0.2:
                raise RolledBack
        except BaseException:
            with anyio.CancelScope(shield=True):
                await connection.execute("ROLLBACK")
            raise
        began = time.monotonic()
        await connection.execute("COMMIT")
        if version:
            self.history.commits.append(Commit(began, time.monotonic(), version))

    async def _write(self, connection: Connection) -> int:
        """Write once or more, some of it in savepoints, and return the version that is left."""
        left = await self._written(connection) if self.rng.random() < 0.7 else 0
        if left and self.rng.random() < 0.7:
            return left
        await connection.execute("SAVEPOINT inner_block")
        written = await self._written(connection)
        if self.rng.random() < 0.5:
            await self._invalidate(0.5)
            await connection.execute("ROLLBACK TO SAVEPOINT inner_block")
            return left
        await connection.execute("RELEASE SAVEPOINT inner_block")
        return written

    async def _written(self, connection: Connection) -> int:
        return await write(connection, self.user, is_new=self.is_new)

    async def _pause(self) -> None:
        """Wait: mostly shorter than `settle`, and now and then, always in a block, longer."""
        settle = max(self.history.settle, 0.05)
        is_long = self.rng.random() < (0.1 if self.around is None else 0.4)
        await anyio.sleep(self.rng.uniform(settle, 2 * settle) if is_long else self.rng.uniform(0, settle / 4))


class Recorded:
    """A block whose entry and exit are recorded.

    Args:
        block: the block.
        history: gets the record, once it has ended.
    """

    def __init__(self, block: AbstractAsyncContextManager[Any], history: History) -> None:
        self._block = block
        self._history = history

    async def __aenter__(self) -> None:
        began = time.monotonic()
        await self._block.__aenter__()
        self._entry = Span(began, time.monotonic())
        self._count_unconfirmed()

    async def __aexit__(self, *error: object) -> None:
        began = time.monotonic()
        await self._block.__aexit__(*error)  # type: ignore[arg-type]  # passed on
        self._history.blocks.append(Block(self._entry, Span(began, time.monotonic())))
        self._count_unconfirmed()

    def _count_unconfirmed(self) -> None:
        if isinstance(self._block, Changing) and self._block.report is not None:
            self._history.unconfirmed += len(self._block.report.silent)


def changing(plugin: ContextPlugin[Account], user: str) -> AbstractAsyncContextManager[Any]:
    """Return the block of the product."""
    return plugin.changing(user)


def nothing(plugin: ContextPlugin[Account], user: str) -> AbstractAsyncContextManager[Any]:
    """Return no block, as where changing() is left out."""
    return nullcontext()


class AtBothEnds:
    """Invalidates at both ends and holds nothing in between, as changing() without its mark would.

    Args:
        plugin: invalidates.
        user: the user.
    """

    def __init__(self, plugin: ContextPlugin[Account], user: str) -> None:
        self._plugin = plugin
        self._user = user

    async def __aenter__(self) -> None:
        await self._plugin.invalidate(self._user)

    async def __aexit__(self, *error: object) -> None:
        await self._plugin.invalidate(self._user)


MUTANTS: Final[dict[str, Around]] = {"nothing": nothing, "at both ends": AtBothEnds}
