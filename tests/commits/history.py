"""The recorded events of one user, and the answers that contradict them: a pure function of times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """Something that began and ended: monotonic seconds before it was called, and after it had returned."""

    began: float
    ended: float


@dataclass(frozen=True)
class Commit(Span):
    """A COMMIT of a version; later ones of a user have greater numbers, and 0 is a user without a row."""

    version: int


@dataclass(frozen=True)
class Load(Span):
    """A call of the source of an instance, which found a version in the primary or in its standby."""

    instance: int
    version: int
    from_standby: bool = False


@dataclass(frozen=True)
class Read(Span):
    """An answer of an instance."""

    instance: int
    version: int


@dataclass(frozen=True)
class Block:
    """A `changing` block: its entry and its exit, each of which invalidates."""

    entry: Span
    exit: Span


@dataclass
class History:
    """The recorded events of one user.

    Args:
        settle: seconds after an invalidation within which a COMMIT is covered by it.
        lag: seconds that the standby may be behind.
        unconfirmed: invalidations that an instance had not confirmed: their reports allow it to serve older answers.
    """

    settle: float
    lag: float = 0.0
    first: int = 0
    commits: list[Commit] = field(default_factory=list)
    invalidations: list[Span] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    unconfirmed: int = 0

    def faults(self) -> list[str]:
        """Return what must not have happened, in words."""
        return [fault for read in self.reads for fault in self._faults_of(read)]

    def settled(self) -> int:
        """Return the number of answers that `settle` alone forbids to be older than they are."""
        return sum(self._floor(read) > self._committed_before(read) for read in self.reads)

    def held(self) -> int:
        """Return the number of answers that were given within a block, after a COMMIT in it."""
        return sum(
            any(commit.ended < read.began and commit.began > block.entry.ended for commit in self.commits)
            for read in self.reads
            for block in self._around(read)
        )

    def overtaxed(self) -> bool:
        """Return whether the standby was further behind than it may be: no cache can make up for that."""
        return any(
            load.version < self._newest(load.began - self.lag, self.commits) for load in self.loads if load.from_standby
        )

    def _faults_of(self, read: Read) -> Iterator[str]:
        if not self._was_committed(read):
            yield f"{read} was never committed, or not yet"
        if read.version < (floor := self._floor(read)):
            yield f"{read} is older than {floor}, which a returned invalidation covers"
        for _ in self._around(read):
            if not any(self._is_from(load, read) for load in self.loads):
                yield f"{read} was kept in a block of changing()"

    def _was_committed(self, read: Read) -> bool:
        return read.version == self.first or any(
            commit.version == read.version and commit.began <= read.ended for commit in self.commits
        )

    def _is_from(self, load: Load, read: Read) -> bool:
        """Return whether an answer may be a load's that was under way while it was waited for, in its instance."""
        is_same = (load.instance, load.version) == (read.instance, read.version)
        return is_same and load.began <= read.ended and self._end_of(load) >= read.began

    def _end_of(self, load: Load) -> float:
        """Return when the callers of a load had its answer: what they wait for goes on after the source's call."""
        callers = (read.ended for read in self.reads if read.instance == load.instance and read.began <= load.ended)
        return max([load.ended, *callers])

    def _around(self, read: Read) -> list[Block]:
        return [block for block in self.blocks if block.entry.ended <= read.began and read.ended <= block.exit.began]

    def _all_invalidations(self) -> Iterator[Span]:
        yield from self.invalidations
        for block in self.blocks:
            yield from (block.entry, block.exit)

    def _committed_before(self, read: Read) -> int:
        """Return the newest version that was committed before an invalidation that has returned."""
        began = [each.began for each in self._all_invalidations() if each.ended <= read.began]
        return self._newest(max(began, default=float("-inf")), self.commits)

    def _floor(self, read: Read) -> int:
        """Return the oldest version that an answer may have."""
        settled = [each.began + self.settle for each in self._all_invalidations() if self._is_settled(each, read)]
        within = self._newest(max(settled, default=float("-inf")), self.commits)
        return max(within, self._committed_before(read))

    def _is_settled(self, invalidation: Span, read: Read) -> bool:
        """Return whether the time after an invalidation was over, and no later one had begun another within it."""
        over = invalidation.ended + self.settle
        return over <= read.began and not any(
            each.began <= read.began < each.ended + self.settle and each.began < over
            for each in self._all_invalidations()
        )

    def _newest(self, at: float, commits: list[Commit]) -> int:
        return max([self.first, *(commit.version for commit in commits if commit.ended <= at)])
