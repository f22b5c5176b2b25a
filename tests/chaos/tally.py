"""What came of everything that was asked: answers by kind, verdicts, and what must not be, told to be found."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from .history import Asked, Told, Verdict

_REMEMBERED: Final = 12


@dataclass
class Tally:
    """Counts of one run.

    Args:
        began_at: from which its times are told.
        answers: requests by what came of them.
        verdicts: answers that tell of a user, by what they are.
        faults: what was made to fail, by kind.
        doubled: the same, in two places at a time.
        pairs: kinds that were under way at the same time, two by two.
        invalidations: by what came of them.
        reports: of those that reached Redis, by what they say of the other instances.
        marked: answers that were marked stale.
        unexplained: look-ups that Redis did not answer though nothing was made to fail.
        wrong: what must not be, each told in a line.
    """

    began_at: float = field(default_factory=time.monotonic)
    answers: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)
    pairs: set[frozenset[str]] = field(default_factory=set)
    invalidations: Counter[str] = field(default_factory=Counter)
    reports: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    unexplained: int = 0
    wrong: list[str] = field(default_factory=list)
    _under_way: Counter[str] = field(default_factory=Counter)
    _events: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def began(self, kind: str, places: int = 1) -> None:
        """Count a fault, and with which others it comes at the same time."""
        self.faults[kind] += 1
        if places > 1:
            self.doubled[kind] += 1
        self.pairs.update(frozenset({kind, other}) for other in self._under_way if other != kind)
        self._under_way[kind] += 1

    def ended(self, kind: str) -> None:
        """Record the end of a fault."""
        self._under_way[kind] -= 1
        self._under_way += Counter()

    @property
    def met_none(self) -> list[str]:
        """The kinds of faults that came, and never at the same time as one of another kind."""
        met = frozenset[str]().union(*self.pairs)
        return sorted(kind for kind in self.faults if kind not in met)

    def happened(self, event: str) -> None:
        """Remember what was just done, to be told with what goes wrong soon after."""
        self._events.append(f"{time.monotonic() - self.began_at:.2f} s {event}")

    def judged(self, verdict: Verdict, asked: Asked, told: Told, newest: int) -> None:
        """Count an answer, and tell of one that must not be."""
        self.verdicts[verdict] += 1
        self.marked += told.stale
        if verdict in (Verdict.MIX_UP, Verdict.TOO_OLD):
            shown = f"user {asked.user} was shown {told}, the newest being v{newest}"
            self.unexpected(f"{verdict.value}: instance {asked.slot}, asked at {self._at(asked.began_at)}: {shown}")

    def unexpected(self, what: str) -> None:
        """Tell of something that must not be."""
        self.wrong.append(f"{self._at(time.monotonic())} {what}; before: {'; '.join(self._events)}")

    def _at(self, time_: float) -> str:
        return f"{time_ - self.began_at:.3f} s"
