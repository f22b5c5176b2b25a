"""Whether a fleet of real processes keeps its promises while everything under it fails."""

from __future__ import annotations

import pytest

from ..matrix import in_full
from .faults import KINDS
from .history import Verdict
from .run import Options, run
from .tally import Tally


@pytest.mark.parametrize(("seconds", "share"), [(3.0, 0.25), in_full(12.0, 1.0)], ids=["short", "long"])
def test_no_answer_is_anothers_or_too_old_whatever_fails(seconds: float, share: float) -> None:
    """Kills, stops, cuts, outages and cancellations: no mix-up, nothing too old, nothing unhandled, nothing leaked."""

    def is_enough(tally: Tally) -> bool:
        """Return whether so much was asked, changed and made to fail that being clean means something."""
        asked, changed = tally.verdicts[Verdict.RIGHT] / 300, tally.invalidations["200"] / 20
        return min(asked, changed, len(tally.faults) / (len(KINDS) // 3)) > share

    report = run(Options(seconds=seconds, seed=4, is_enough=is_enough))
    assert report.evidence == []
    assert report.is_clean
    assert is_enough(report.tally)
