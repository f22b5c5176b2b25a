"""Whether a real standby that has not applied a COMMIT is read too early, by the guard that SupabaseSource uses."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.testing import FakeClock
from examples.servers import Postgres, Standby
from tests.backends import asyncio_only
from tests.commits.database import SCHEMA, Account, Accounts, Pool

pytestmark = [pytest.mark.anyio, asyncio_only]

ADA = "ada@example.org"
OLD, NEW = Account(1), Account(2)
LAG, SETTLE = 10.0, 5.0
# Longer than the test takes: whatever it commits is not there.
NEVER = 3600.0


@pytest.fixture
async def source() -> AsyncIterator[tuple[Accounts, FakeClock, psycopg.Connection[Any]]]:
    """A source of a primary and its standby, the guard's clock, and an older transaction that has written already."""
    clock = FakeClock()
    with Postgres.start() as primary:
        with psycopg.connect(primary.dsn(), autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute("INSERT INTO accounts VALUES (%s, 1)", [ADA])
        with Standby.start(primary, delay=NEVER) as standby, psycopg.connect(primary.dsn()) as older:
            older.execute("UPDATE accounts SET version = 2")
            async with Pool(primary.dsn(), 1) as here, Pool(standby.dsn(), 1) as there:
                yield (
                    Accounts(0, here, there, LAG, random.Random(1), lambda *_: None, clock=clock),
                    clock,
                    older,
                )


async def test_a_transaction_that_was_open_at_the_invalidation_is_read_from_the_primary(
    source: tuple[Accounts, FakeClock, psycopg.Connection[Any]],
) -> None:
    """It commits within `settle`, and the standby may lack it for its lag from then on."""
    accounts, clock, older = source
    identity = Identity(ADA)
    assert await accounts.fetch(identity) == OLD
    accounts.invalidated(identity, ago=0)
    clock.advance(LAG)
    older.commit()
    # Without settle the guard ends here, and the standby brings back the row of before.
    assert await accounts.fetch(identity) == OLD
    accounts.settle(SETTLE)
    accounts.invalidated(identity, ago=0)
    clock.advance(LAG + SETTLE - 0.1)
    assert await accounts.fetch(identity) == NEW
    clock.advance(0.1)
    assert await accounts.fetch(identity) == OLD
    # Another process's invalidation, announced here four seconds late.
    accounts.invalidated(identity, ago=4)
    clock.advance(LAG + SETTLE - 4.1)
    assert await accounts.fetch(identity) == NEW
    clock.advance(0.1)
    assert await accounts.fetch(identity) == OLD
