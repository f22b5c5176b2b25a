"""Whether an answer is older than an invalidation allows, on a real PostgreSQL; `python -m tests.commits` runs more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from examples.servers import Postgres, Standby, Valkey
from tests.matrix import in_full

from .run import Options, Outcome, run
from .transaction import MUTANTS

SETTLE = 0.2
OPTIONS = Options(interleavings=300, at_once=150, settle=SETTLE)
MUTANT = replace(OPTIONS, interleavings=1000, at_once=50, first_fault=True)
LONGEST_SETTLE = 6.4
DELAY = 0.3


@pytest.fixture(scope="module")
def primary() -> Iterator[Postgres]:
    """A PostgreSQL of its own: a standby copies the whole server."""
    with Postgres.start() as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary: Postgres) -> Iterator[Standby]:
    """A standby that applies each COMMIT late."""
    with Standby.start(primary, delay=DELAY) as server:
        yield server


def _run(options: Options, valkey: Valkey, primary: Postgres, standby: Standby | None = None) -> Outcome:
    return asyncio.run(run(options, valkey, primary.dsn(), None if standby is None else standby.dsn()))


def _found(options: Options, valkey: Valkey, primary: Postgres, standby: Standby | None = None) -> str:
    """Return the faults of a mutant: of all times that scale with `settle`, the first that the machine keeps."""
    settle, faults = SETTLE, ""
    while not faults and settle <= LONGEST_SETTLE:
        with redis.Redis.from_url(valkey.url) as client:
            client.flushall()
        faults = _faults(_run(replace(options, checked_settle=settle), valkey, primary, standby))
        settle *= 2
    return faults


def _faults(outcome: Outcome) -> str:
    return "; ".join(fault for _, _, faults in outcome.broken for fault in faults)


@pytest.mark.usefixtures("redis_url")
def test_no_answer_is_older_than_its_invalidation_allows(valkey: Valkey, primary: Postgres) -> None:
    """Random transactions, savepoints, rollbacks and reads, with invalidations by call and with changing()."""
    outcome = _run(OPTIONS, valkey, primary)
    assert _faults(outcome) == ""
    counts = outcome.counts
    assert counts["interleavings"] == OPTIONS.interleavings
    # A busy machine may answer later than an answer is trusted: it is refused then, and not wrong.
    assert counts["reads refused"] < counts["reads"] / 20
    assert min(counts[what] for what in ("commits", "invalidations", "blocks")) > 0


@pytest.mark.usefixtures("redis_url")
def test_nor_where_a_standby_is_read_that_lags(valkey: Valkey, primary: Postgres, standby: Standby) -> None:
    """The source asks the primary for as long as `settle` and the lag together."""
    outcome = _run(replace(OPTIONS, interleavings=150, delay=DELAY), valkey, primary, standby)
    assert _faults(outcome) == ""
    assert outcome.counts["loads from the standby"]
    assert outcome.counts["reads refused"] < outcome.counts["reads"] / 20


@pytest.mark.usefixtures("redis_url")
def test_without_settle_an_invalidation_before_the_commit_is_undone(valkey: Valkey, primary: Postgres) -> None:
    """The run finds the old row that is kept for its whole time."""
    assert "is older than" in _found(replace(MUTANT, settle=0.0, blocks=0.0), valkey, primary)


@pytest.mark.usefixtures("redis_url")
@pytest.mark.parametrize(
    ("mutant", "fault"),
    [("nothing", "is older than|was kept in a block"), in_full("at both ends", "was kept in a block")],
)
def test_without_changing_the_run_finds_what_it_prevents(
    valkey: Valkey, primary: Postgres, mutant: str, fault: str
) -> None:
    """With no block at all, and with one that invalidates at both ends and holds nothing in between."""
    options = replace(MUTANT, settle=0.0, blocks=1.0, around=MUTANTS[mutant])
    assert re.search(fault, _found(options, valkey, primary))


@pytest.mark.full
@pytest.mark.usefixtures("redis_url")
def test_a_source_that_reads_the_standby_at_once_is_found(valkey: Valkey, primary: Postgres, standby: Standby) -> None:
    """It brings back what the invalidation was for."""
    assert "is older than" in _found(replace(MUTANT, delay=DELAY, tells_source=False), valkey, primary, standby)
