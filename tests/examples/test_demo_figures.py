"""Whether the demo's company is the same each time and fits together, and its figures are what they are called."""

from __future__ import annotations

from examples.demo.company import Company
from examples.demo.comparison import Measured, Pair, quantile
from examples.demo.report import as_json

COMPANY = Company.invented(2000, seed=3)


def test_the_same_company_each_time() -> None:
    """Size and seed settle everything; another seed makes another company."""
    assert Company.invented(2000, seed=3) == COMPANY
    assert Company.invented(2000, seed=4) != COMPANY


def test_a_company_that_fits_together() -> None:
    """Addresses, codes and ids are unique, whatever is referred to exists, and nobody has two primary assignments."""
    for rows, name in ((COMPANY.employees, "email"), (COMPANY.slots, "code"), (COMPANY.zones, "id")):
        values = [getattr(row, name) for row in rows]
        assert len(set(values)) == len(values)
    assert {zone.region_code for zone in COMPANY.zones} == {region.code for region in COMPANY.regions}
    slots, people = {slot.id for slot in COMPANY.slots}, {person.id for person in COMPANY.employees}
    assert {row.slot_id for row in COMPANY.assignments} <= slots
    assert {row.employee_id for row in COMPANY.assignments} <= people
    primary = [row.employee_id for row in COMPANY.assignments if row.is_primary]
    assert len(set(primary)) == len(primary)


def test_people_of_all_kinds() -> None:
    """Some have left, some work on nothing, most work on one thing or more, and some assignments are over."""
    assigned = {row.employee_id for row in COMPANY.assignments}
    assert 0.9 < len(COMPANY.active) / len(COMPANY.employees) < 1
    assert 0.85 < len(assigned) / len(COMPANY.employees) < 1
    assert len(COMPANY.assignments) > 1.5 * len(assigned)
    assert any(row.ends_on is not None and row.ends_on > row.starts_on for row in COMPANY.assignments)


def test_quantiles() -> None:
    """Half of the values lie below the median, and the highest quantile is the highest value."""
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.99) == 2.0
    assert quantile([5.0], 0.5) == 5.0


def test_the_shape_of_the_json() -> None:
    """Only what has a cache has a hit rate; one of nought is told, too."""
    before = Measured(requests=10, db_calls=40, warehouse_calls=10, p50_ms=1.5, p99_ms=2.5, rps=3.5)
    after = Measured(requests=10, db_calls=1, warehouse_calls=0, p50_ms=0.5, p99_ms=1.0, rps=30.0, hit_rate=0.0)
    written = as_json(Pair(before, after, (3.0,)), Pair(before, after, (3.0,)))
    line = {"requests": 10, "db_calls": 40, "warehouse_calls": 10, "p50_ms": 1.5, "p99_ms": 2.5, "rps": 3.5}
    assert written["before"] == written["wan"]["before"] == line
    assert written["after"]["hit_rate"] == 0.0
