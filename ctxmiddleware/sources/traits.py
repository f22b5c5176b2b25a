"""What a source says of itself, or wants to be told, beside giving contexts."""

from __future__ import annotations


def label_of(source: object) -> str:
    """Return what tells the database of a source from others, empty where the source does not say."""
    label = getattr(source, "label", "")
    return label if isinstance(label, str) else ""


def lag_of(source: object) -> float:
    """Return the seconds for which a source may be behind its database; 0 where it does not say."""
    lag = getattr(source, "replica_lag", 0.0)
    return float(lag) if isinstance(lag, (int, float)) else 0.0


def tell_settle(source: object, settle: float) -> None:
    """Tell a source, if it wants to know, for how many seconds after an invalidation its transaction may commit."""
    # A source that reads from a replica asks its primary for so much longer.
    told = getattr(source, "settle", None)
    if callable(told):
        told(settle)
