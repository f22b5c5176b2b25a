"""What a source of zones is, what its zones look like once loaded, and which of them belong to a context."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from ..errors import SourceError
from ..model import UserContext, Zone

_by_id: Final = attrgetter("id")


class ZoneSource(Protocol):
    """Where zones come from: the shipped one is `BigQueryZones`."""

    async def fetch(self) -> Sequence[Zone]:
        """Return all zones there are, in any order, no id twice.

        Raises:
            SourceUnavailable: the source cannot answer now.
            SourceError: the source answered with something that is not zones.
        """
        ...


# Compared by identity: a reader asks only "is it still the one I joined with?", and never pays for the content.
@dataclass(frozen=True, slots=True, eq=False)
class ZoneSnapshot:
    """All zones as they were at one moment; a newer load makes a new snapshot and leaves this one as it is.

    Args:
        by_region: the zones of each region code, ordered by id.
        loaded_at: when its load began, on the clock of the service that made it; None before the first load.
        count: how many zones there are.
    """

    by_region: Mapping[str, tuple[Zone, ...]]
    loaded_at: float | None
    count: int

    @classmethod
    def of(cls, zones: Iterable[Zone], *, loaded_at: float | None) -> ZoneSnapshot:
        """Build the snapshot of these zones.

        Raises:
            SourceError: an id is there twice, so one zone would stand for two.
        """
        groups: defaultdict[str, list[Zone]] = defaultdict(list)
        last, count = None, 0
        for zone in sorted(zones, key=_by_id):
            if zone.id == last:
                raise SourceError(f"zone {zone.id!r} is there more than once: a zone's id must be its own")
            groups[zone.region_code].append(zone)
            last, count = zone.id, count + 1
        by_region = {code: tuple(members) for code, members in groups.items()}
        return cls(MappingProxyType(by_region), loaded_at, count)

    def zones_of(self, region_codes: Iterable[str]) -> tuple[Zone, ...]:
        """Return the zones of these regions, ordered by id; they are the snapshot's own objects."""
        found = [zones for code in frozenset(region_codes) if (zones := self.by_region.get(code))]
        if len(found) == 1:
            return found[0]
        return tuple(sorted((zone for zones in found for zone in zones), key=_by_id))

    def __repr__(self) -> str:
        if self.loaded_at is None:
            return "<ZoneSnapshot, not loaded yet>"
        return f"<ZoneSnapshot of {self.count} zones in {len(self.by_region)} regions>"


EMPTY: Final = ZoneSnapshot.of((), loaded_at=None)
"""What there is before the first load."""


def zones_for_user_context(context: UserContext, snapshot: ZoneSnapshot) -> UserContext:
    """Return the context with the zones whose `region_code` is the code of one of its regions, ordered by id."""
    zones = snapshot.zones_of(region.code for region in context.regions)
    if not zones and not context.zones:
        return context
    return msgspec.structs.replace(context, zones=zones)
