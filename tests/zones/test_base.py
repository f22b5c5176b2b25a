"""Which zones a context is given, and what a snapshot is."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware.errors import SourceError
from ctxmiddleware.model import Employee, Region, UserContext, Zone
from ctxmiddleware.zones.base import EMPTY, ZoneSnapshot, zones_for_user_context

codes = st.sampled_from(["", "R1", "R2", "r1", "R1 ", "Ř", "R10"])
zone_sets = st.lists(
    st.builds(Zone, id=st.text(max_size=4), name=st.text(max_size=3), region_code=codes), unique_by=lambda zone: zone.id
)
region_lists = st.lists(st.builds(Region, id=st.integers(), code=codes, name=st.just("a region")), max_size=5)


def context_of(regions: list[Region], zones: tuple[Zone, ...] = ()) -> UserContext:
    """Return a context with these regions and zones."""
    employee = Employee(id=1, email="ada@example.org", full_name="Ada", job_title=None, role="rep", is_active=True)
    return UserContext(employee.email, employee, (), (), tuple(regions), zones)


@given(zone_sets, region_lists)
def test_the_join_is_the_naive_one(zones: list[Zone], regions: list[Region]) -> None:
    """A context holds each zone whose region code is one of its regions' once, by id, as the very object loaded."""
    expected = sorted(
        (zone for zone in zones if any(zone.region_code == region.code for region in regions)),
        key=lambda zone: zone.id,
    )
    context = context_of(regions)
    joined = zones_for_user_context(context, ZoneSnapshot.of(zones, loaded_at=0.0))
    assert [id(zone) for zone in joined.zones] == [id(zone) for zone in expected]
    assert context.zones == ()
    assert joined.regions is context.regions
    assert joined.employee is context.employee


@given(zone_sets)
def test_a_snapshot_holds_every_zone_once(zones: list[Zone]) -> None:
    """Nothing is lost or doubled when zones are grouped, and each group is ordered by id."""
    snapshot = ZoneSnapshot.of(iter(zones), loaded_at=1.0)
    grouped = [zone for group in snapshot.by_region.values() for zone in group]
    assert sorted(grouped, key=lambda zone: zone.id) == sorted(zones, key=lambda zone: zone.id)
    assert snapshot.count == len(zones)
    assert all(
        [zone.id for zone in group] == sorted(zone.id for zone in group) for group in snapshot.by_region.values()
    )


@given(zone_sets.filter(bool), st.data())
def test_an_id_that_is_there_twice_is_refused(zones: list[Zone], data: st.DataObject) -> None:
    """Two zones of one id are an error that names the id, whatever regions they are in."""
    twin = Zone(data.draw(st.sampled_from(zones)).id, "twin", data.draw(codes))
    with pytest.raises(SourceError) as caught:
        ZoneSnapshot.of([*zones, twin], loaded_at=0.0)
    assert repr(twin.id) in str(caught.value)


def test_users_of_one_region_share_its_tuple() -> None:
    """The zones of a single region are not copied for each user."""
    snapshot = ZoneSnapshot.of([Zone("a", "A", "R1"), Zone("b", "B", "R1")], loaded_at=0.0)
    region = Region(1, "R1", "north")
    first = zones_for_user_context(context_of([region]), snapshot)
    second = zones_for_user_context(context_of([region, Region(2, "R1", "again")]), snapshot)
    assert first.zones is second.zones


def test_before_the_first_load_contexts_have_no_zones() -> None:
    """The empty snapshot changes nothing, and takes away what an older one gave."""
    context = context_of([Region(1, "R1", "north")])
    assert zones_for_user_context(context, EMPTY) is context
    assert zones_for_user_context(context_of([], (Zone("a", "A", "R1"),)), EMPTY).zones == ()
    assert (EMPTY.loaded_at, EMPTY.count, repr(EMPTY)) == (None, 0, "<ZoneSnapshot, not loaded yet>")


def test_a_snapshot_cannot_be_changed() -> None:
    """Neither its fields nor its mapping can be written to."""
    snapshot = ZoneSnapshot.of([Zone("a", "A", "R1")], loaded_at=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.count = 2  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError):
        snapshot.by_region["R1"] = ()  # type: ignore[index]  # the point of the test
    assert repr(snapshot) == "<ZoneSnapshot of 1 zones in 1 regions>"
