"""Whether an answer is older than an invalidation allows, on a real PostgreSQL; `python -m tests.commits` runs more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from examples.servers import Postgres, Standby, Valkey
from tests.matrix import in_full

from .run import Options, Outcome, run
from .transaction import MUTANTS

SETTLE = 0.2
OPTIONS = Options(interleavings=300, at_once=150, settle=SETTLE)
MUTANT = replace(OPTIONS, interleavings=3000, first_fault=True)
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


def _faults(outcome: Outcome) -> str:
    return "; ".join(fault for _, _, faults in outcome.broken for fault in faults)


@pytest.mark.usefixtures("redis_url")
def test_no_answer_is_older_than_its_invalidation_allows(valkey: Valkey, primary: Postgres) -> None:
    """Random transactions, savepoints, rollbacks and reads, with invalidations by call and with changing()."""
    outcome = _run(OPTIONS, valkey, primary)
    assert _faults(outcome) == ""
    counts = outcome.counts
    assert counts["interleavings"] == OPTIONS.interleavings
    assert counts["reads refused"] == 0
    assert min(counts[what] for what in ("commits", "invalidations", "blocks")) > 0


@pytest.mark.usefixtures("redis_url")
def test_nor_where_a_standby_is_read_that_lags(valkey: Valkey, primary: Postgres, standby: Standby) -> None:
    """The source asks the primary for as long as `settle` and the lag together."""
    outcome = _run(replace(OPTIONS, interleavings=150, delay=DELAY), valkey, primary, standby)
    assert _faults(outcome) == ""
    assert outcome.counts["loads from the standby"]
    assert outcome.counts["reads refused"] == 0


@pytest.mark.usefixtures("redis_url")
def test_without_settle_an_invalidation_before_the_commit_is_undone(valkey: Valkey, primary: Postgres) -> None:
    """The run finds the old row that is kept for its whole time."""
    outcome = _run(replace(MUTANT, settle=0.0, checked_settle=SETTLE, blocks=0.0), valkey, primary)
    assert "is older than" in _faults(outcome)


@pytest.mark.usefixtures("redis_url")
@pytest.mark.parametrize(
    ("mutant", "fault"),
    [("nothing", "is older than"), in_full("at both ends", "was kept in a block of changing()")],
)
def test_without_changing_the_run_finds_what_it_prevents(
    valkey: Valkey, primary: Postgres, mutant: str, fault: str
) -> None:
    """With no block at all, and with one that invalidates at both ends and holds nothing in between."""
    outcome = _run(
        replace(MUTANT, settle=0.0, checked_settle=SETTLE, blocks=1.0, around=MUTANTS[mutant]), valkey, primary
    )
    assert fault in _faults(outcome)


@pytest.mark.full
@pytest.mark.usefixtures("redis_url")
def test_a_source_that_reads_the_standby_at_once_is_found(valkey: Valkey, primary: Postgres, standby: Standby) -> None:
    """It brings back what the invalidation was for."""
    outcome = _run(replace(MUTANT, delay=DELAY, tells_source=False), valkey, primary, standby)
    assert "is older than" in _faults(outcome)
