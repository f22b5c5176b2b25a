"""Whether rows make one whole context of the person asked for, and how a fault is told."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware.errors import SourceError
from ctxmiddleware.model import Assignment, Employee, Slot, UserContext
from ctxmiddleware.sources.rows import DanglingReference, context_from, rows_from

EMAIL = "ada.lovelace@example.com"
GOOD: dict[str, Any] = {
    "email": EMAIL,
    "employee": {
        "id": 7,
        "email": "Ada.Lovelace@Example.com",
        "full_name": "Ada Lovelace",
        "job_title": None,
        "role": "rep",
        "is_active": True,
    },
    "assignments": [
        {"id": 1, "employee_id": 7, "slot_id": 11, "is_primary": True, "starts_on": "2026-01-01", "ends_on": None},
        {
            "id": 2,
            "employee_id": 7,
            "slot_id": 12,
            "is_primary": False,
            "starts_on": "2026-01-01",
            "ends_on": "2026-12-31",
        },
    ],
    "slots": [
        {"id": 11, "code": "S11", "name": "Eleven", "region_id": 3},
        {"id": 12, "code": "S12", "name": "Twelve", "region_id": 3},
    ],
    "regions": [{"id": 3, "code": "R3", "name": "Three"}],
}
MISSING = object()


def altered(path: str, value: object) -> bytes:
    """Return the good context as JSON with one place changed."""
    context = copy.deepcopy(GOOD)
    *parents, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    place: Any = context
    for step in parents:
        place = place[step]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return json.dumps(context).encode()


def test_a_whole_context_is_decoded() -> None:
    """The function's JSON becomes a context under the normalised address, dates included."""
    context = context_from(json.dumps(GOOD).encode(), " ADA.Lovelace@example.com ")
    assert context is not None
    assert context.email == EMAIL
    assert context.employee.email == "Ada.Lovelace@Example.com"
    assert context.assignments[1].ends_on == date(2026, 12, 31)
    assert context.zones == ()


def test_the_address_of_a_context_is_the_normalised_one() -> None:
    """A function that returns the address as it is stored gives the same context as one that normalises it."""
    context = context_from(altered("email", "Ada.Lovelace@Example.com"), EMAIL)
    assert context == msgspec.json.decode(json.dumps(GOOD), type=UserContext)


def test_null_is_an_unknown_user() -> None:
    """The function's `null` is no context and no error."""
    assert context_from(b"null", EMAIL) is None


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("assignments.0.slot_id", "eleven", "assignments.slot_id: expected int, got str"),
        ("assignments.0.slot_id", None, "assignments.slot_id: expected int, got null"),
        ("assignments.0.slot_id", True, "assignments.slot_id: expected int, got bool"),
        ("assignments.0.slot_id", 1.5, "assignments.slot_id: expected int, got float"),
        ("assignments.0.slot_id", 1e300, "assignments.slot_id: expected int, got float"),
        ("assignments.0.slot_id", 2**63, "assignments.slot_id: out of the range of bigint"),
        ("assignments.0.slot_id", 10**400, "assignments.slot_id: out of the range of bigint"),
        ("assignments.0.slot_id", MISSING, "assignments.slot_id: missing"),
        ("assignments.0", "x", "assignments: expected object, got str"),
        ("assignments.0.starts_on", "infinity", "assignments.starts_on: expected date, got another text"),
        ("assignments.0.starts_on", "0044-03-15 BC", "assignments.starts_on: expected date, got another text"),
        ("assignments.0.ends_on", "-infinity", "assignments.ends_on: expected date, got another text"),
        ("assignments.0.ends_on", "2026-02-30", "assignments.ends_on: expected date, got another text"),
        ("assignments.0.is_primary", "t", "assignments.is_primary: expected bool, got str"),
        ("assignments", None, "assignments: expected array, got null"),
        ("assignments", MISSING, "assignments: missing"),
        ("employee", None, "employees: expected object, got null"),
        ("employee.full_name", None, "employees.full_name: expected str, got null"),
        ("employee.full_name", MISSING, "employees.full_name: missing"),
        ("employee.job_title", 5, "employees.job_title: expected str | null, got int"),
        ("employee.id", 2**64, "employees.id: out of the range of bigint"),
        ("slots.1.region_id", "3", "slots.region_id: expected int, got str"),
        ("regions.0.name", ["x"], "regions.name: expected str, got array"),
    ],
)
def test_a_row_that_does_not_fit_names_table_and_field(path: str, value: object, complaint: str) -> None:
    """The error says where the fault is and what was expected there, and nothing of what was found."""
    with pytest.raises(SourceError, match=f"^{re.escape(complaint)}$"):
        context_from(altered(path, value), EMAIL)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("email", "eve@example.com", "employees.email: "),
        ("employee.email", "eve@example.com", "employees.email: "),
        ("employee.email", "ada.love\u212aace@example.com", "employees.email: "),
        ("employee.id", 8, "assignments.employee_id: an assignment of another employee"),
        ("assignments.1.employee_id", 8, "assignments.employee_id: an assignment of another employee"),
        ("assignments.1.id", 1, "assignments.id: the rows are not ordered"),
        ("assignments.1.id", 0, "assignments.id: the rows are not ordered"),
        ("slots.1.id", 11, "slots.id: the rows are not ordered"),
        ("regions", GOOD["regions"] * 2, "regions.id: the rows are not ordered"),
        (
            "slots",
            GOOD["slots"] + [{"id": 13, "code": "X", "name": "X", "region_id": 3}],
            "slots.id: a row was returned",
        ),
        ("regions", GOOD["regions"] + [{"id": 4, "code": "X", "name": "X"}], "regions.id: a row was returned"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(path: str, value: object, complaint: str) -> None:
    """Another address, another employee, a row twice, out of order or too many is an error, never a context."""
    with pytest.raises(SourceError, match=f"^{re.escape(complaint)}"):
        context_from(altered(path, value), EMAIL)


@pytest.mark.parametrize(
    ("path", "value", "reference"),
    [
        ("slots", GOOD["slots"][:1], "assignments.slot_id"),
        ("slots", [], "assignments.slot_id"),
        ("regions", [], "slots.region_id"),
    ],
)
def test_a_missing_row_is_a_dangling_reference(path: str, value: object, reference: str) -> None:
    """A half-filled context is an error of its own kind, for rows may have changed between two reads."""
    with pytest.raises(DanglingReference, match=f"^{reference}: "):
        context_from(altered(path, value), EMAIL)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"[null]", b'"x"', b"1", b"true", b"{}", b"NaN", b"nul", b"null null", b"<html></html>",
        b"\xff", b'{"email":"\xff"}', b'{"\xff":1}', b'{"email":"\\ud800"}', b"[" * 100_000, b'{"x":' + b"[" * 100_000,
        json.dumps(GOOD).encode()[:-1], json.dumps(GOOD).encode() + b"]", json.dumps(GOOD).encode("utf-16"),
        json.dumps(GOOD).replace("11", "NaN", 1).encode(), json.dumps(GOOD).replace("11", "9" * 5000, 1).encode(),
    ],
)  # fmt: skip
def test_what_is_no_context_is_a_source_error(body: bytes) -> None:
    """Everything but one JSON object of the right shape is one of our errors, without the bytes in it."""
    with pytest.raises(SourceError) as caught:
        context_from(body, EMAIL)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert EMAIL not in str(caught.value)


def test_rows_of_a_table_name_the_table() -> None:
    """A fault in a row that was read from a table is told like one in the function's answer."""
    good = json.dumps(GOOD["slots"]).encode()
    assert [slot.id for slot in rows_from(good, "slots", Slot)] == [11, 12]
    for body, complaint in [
        (good.replace(b'"S12"', b"12"), "slots.code: expected str, got int"),
        (good.replace(b'"code"', b'"kode"'), "slots.code: missing"),
        (good.replace(b"12,", b"99999999999999999999,"), "slots.id: out of the range of bigint"),
        (b"{}", "slots: expected array, got object"),
        (b"[5]", "slots: expected object, got int"),
        (b"null", "slots: expected array, got null"),
    ]:
        with pytest.raises(SourceError, match=f"^{complaint}$"):
            rows_from(body, "slots", Slot)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_context_or_our_error(body: bytes) -> None:
    """No answer makes another exception than ours."""
    with suppress(SourceError):
        assert context_from(body, EMAIL) is None
    with suppress(SourceError):
        rows_from(body, "assignments", Assignment)
    with suppress(SourceError):
        rows_from(body, "employees", Employee)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)
_places = [
    "email", "employee", "employee.id", "employee.email", "employee.job_title", "assignments", "assignments.0",
    "assignments.0.id", "assignments.1.starts_on", "slots", "slots.0.region_id", "regions", "regions.0.name",
]  # fmt: skip


@given(st.sampled_from(_places), _anything)
def test_one_wrong_place_never_yields_another_context(path: str, value: object) -> None:
    """Whatever stands in one place, the outcome is our error or a context that is whole and can be stored."""
    context = None
    with suppress(SourceError):
        context = context_from(altered(path, value), EMAIL)
    if context is None:
        return
    assert context.email == EMAIL
    assert {slot.id for slot in context.slots} == {assignment.slot_id for assignment in context.assignments}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(context), type=UserContext) == context
