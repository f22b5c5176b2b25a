"""Whether a fleet of real processes keeps its promises while everything under it fails."""

from __future__ import annotations

from .faults import KINDS
from .history import Verdict
from .run import Options, run


def test_no_answer_is_anothers_or_too_old_whatever_fails() -> None:
    """Kills, stops, cuts, outages and cancellations: no mix-up, nothing too old, nothing unhandled, nothing leaked."""
    report = run(Options(seconds=12.0, seed=4))
    assert report.evidence == []
    assert report.is_clean
    # A run that asked nobody, or let nothing fail, would be clean too.
    assert report.tally.verdicts[Verdict.RIGHT] > 300
    assert report.tally.invalidations["200"] > 20
    assert len(report.tally.faults) > len(KINDS) // 3
