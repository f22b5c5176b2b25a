"""The reference model: what a user's context holds, field by field."""

from __future__ import annotations

from datetime import date

from .context_types.pydantic_support import PydanticStruct


class Employee(PydanticStruct, frozen=True, gc=False):
    """The person, one row of `employees`."""

    id: int
    email: str
    full_name: str
    job_title: str | None
    role: str
    is_active: bool


class Assignment(PydanticStruct, frozen=True, gc=False):
    """An employee's place on a slot from one day to another, one row of `assignments`."""

    id: int
    employee_id: int
    slot_id: int
    is_primary: bool
    starts_on: date
    ends_on: date | None


class Slot(PydanticStruct, frozen=True, gc=False):
    """A position that people are assigned to, one row of `slots`."""

    id: int
    code: str
    name: str
    region_id: int


class Region(PydanticStruct, frozen=True, gc=False):
    """Where a slot works, one row of `regions`."""

    id: int
    code: str
    name: str


class Zone(PydanticStruct, frozen=True, gc=False):
    """A part of a region, one row of the warehouse's zones table."""

    id: str
    name: str
    region_code: str


class UserContext(PydanticStruct, frozen=True, gc=False):
    """Everything an application asks about a signed-in user on every request.

    `email` is the normalised address the context was found under; `employee.email` is the address as it is stored.
    """

    email: str
    employee: Employee
    assignments: tuple[Assignment, ...]
    slots: tuple[Slot, ...]
    regions: tuple[Region, ...]
    zones: tuple[Zone, ...] = ()
