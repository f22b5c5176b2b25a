"""Optional attributes of a source: its label, its replica lag, and its `settle` hook."""

from __future__ import annotations


def label_of(source: object) -> str:
    """Return the label that distinguishes the database of a source, empty if the source has none."""
    label = getattr(source, "label", "")
    return label if isinstance(label, str) else ""


def lag_of(source: object) -> float:
    """Return the seconds for which a source may be behind its database; 0 where it does not say."""
    lag = getattr(source, "replica_lag", 0.0)
    return float(lag) if isinstance(lag, (int, float)) else 0.0


def tell_settle(source: object, settle: float) -> None:
    """Pass the seconds within which a transaction may commit after its invalidation to the `settle` of a source."""
    # A source that reads from a replica asks its primary for so much longer.
    hook = getattr(source, "settle", None)
    if callable(hook):
        hook(settle)
