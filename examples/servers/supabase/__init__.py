"""Supabase's outside, as far as a client of its REST interface meets it: prefix, key check, and a gateway's faults."""

from __future__ import annotations

from .front import FrontCounts, SupabaseFront
from .keys import Keys

__all__ = ["FrontCounts", "Keys", "SupabaseFront"]
