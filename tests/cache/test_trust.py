"""How far an entry is trusted: by its own look, by the channel, and not at all once somebody touched its generation."""

from __future__ import annotations

import math

from ctxmiddleware.cache.base import Entry
from ctxmiddleware.cache.policy import CachePolicy, Verdict, judge, stale_until
from ctxmiddleware.cache.trust import NO_EPOCH, Trust

POLICY = CachePolicy(jitter=0)
LASTS = POLICY.untrusted_ttl


def _entry(asked_at: float = 0.0, epoch: int = 0) -> Entry[str]:
    return POLICY.entry("value", "db", asked_at, POLICY.ttl, shared=True, epoch=epoch)


def test_a_proof_makes_it_last() -> None:
    """The later of its own look and the last proof, and `lasts` on top."""
    trust, entry = Trust(LASTS), _entry()
    assert trust.of(entry) == LASTS
    trust.prove(3)
    assert trust.of(entry) == 3 + LASTS
    trust.prove(2)
    assert trust.of(entry) == 3 + LASTS


def test_what_was_looked_up_before_trust_ended_was_trusted_until_then() -> None:
    """No proof that comes later is one for it."""
    trust, entry = Trust(LASTS), _entry()
    trust.prove(3)
    trust.end(4)
    trust.prove(5)
    assert trust.of(entry) == 4
    assert judge(entry, 4, trust) is Verdict.STALE
    assert judge(_entry(4, trust.epoch), 6, trust) is Verdict.FRESH


def test_a_doubted_entry_stands_in_from_when_it_was_doubted() -> None:
    """And not from when trust in all of them ended, long before it was looked up, or never."""
    for ended_at in (math.inf, 0.0):
        trust = Trust(LASTS)
        if ended_at == 0.0:
            trust.end(0)
        entry = _entry(400, trust.epoch)
        entry.epoch, entry.trusted_until = NO_EPOCH, 401.0
        trust.prove(401)
        assert trust.of(entry) == 401
        assert judge(entry, 402, trust) is Verdict.STALE
        assert stale_until(entry, trust) == 401 + POLICY.stale_for
        assert judge(entry, 401 + POLICY.stale_for, trust) is Verdict.GONE


def test_what_was_looked_up_before_it_is_told_of_touched_generations_is_looked_up_again_behind_the_answer() -> None:
    """It is served, but a generation may have been deleted by hand in the gap; one look settles it."""
    trust, before, after = Trust(LASTS), _entry(), _entry(20.5)
    trust.told(20)
    trust.prove(21)
    assert judge(before, 21, trust) is Verdict.AHEAD
    assert judge(after, 21, trust) is Verdict.FRESH
    trust.prove(60)
    assert judge(after, 60, trust) is Verdict.FRESH
    # After a look that failed it waits for its turn.
    before.renew_at = 62
    assert judge(before, 60, trust) is Verdict.FRESH


class Racing(Trust):
    """Another thread ends trust, and proves the next epoch, as soon as this one has read the epoch."""

    def __init__(self) -> None:
        self._epoch, self._raced = 0, False
        super().__init__(LASTS)

    @property
    def epoch(self) -> int:
        epoch = self._epoch
        if not self._raced:
            self._raced = True
            self.end(10)
            self.prove(12)
        return epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch


def test_a_proof_of_the_next_epoch_is_none_of_this_one_in_the_middle_of_a_judgement() -> None:
    """The entry was looked up before news were missed, whatever the other thread does meanwhile."""
    racing = Racing()
    racing._raced = False
    assert judge(_entry(), 12, racing) is not Verdict.FRESH
    racing = Racing()
    racing._raced = False
    assert racing.of(_entry()) <= 10
