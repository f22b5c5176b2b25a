"""What Northwind says of its nine employees, and what follows from it for each one's context."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Northwind:
    """The four tables as they are there, `employee_territories` in pairs."""

    employees: list[tuple[int, str, str, str, date, int]]
    regions: list[tuple[int, str]]
    territories: list[tuple[str, str, int]]
    employee_territories: list[tuple[int, str]]


def read() -> Northwind:
    """Return the tables out of the data file."""
    content = tomllib.loads(Path(__file__).with_name("northwind.toml").read_text(encoding="utf-8"))
    return Northwind(
        employees=[tuple(row) for row in content["employees"]],
        regions=[tuple(row) for row in content["regions"]],
        territories=[tuple(row) for row in content["territories"]],
        employee_territories=[(who, where) for who, places in content["employee_territories"] for where in places],
    )


NORTHWIND = read()


def address(employee: int) -> str:
    """Return the e-mail address that the load gives an employee; Northwind has none."""
    [(first, last)] = [(row[1], row[2]) for row in NORTHWIND.employees if row[0] == employee]
    return f"{first}.{last}@northwind.example".lower()


ADDRESSES = {row[0]: address(row[0]) for row in NORTHWIND.employees}


def expected(employee: int) -> dict[str, Any]:
    """Return an employee's context as it follows from the tables, by nested loops and without any code of ours."""
    [(number, first, last, title, hired, _)] = [row for row in NORTHWIND.employees if row[0] == employee]
    places = [where for who, where in NORTHWIND.employee_territories if who == employee]
    territories = [row for row in NORTHWIND.territories if row[0] in places]
    leads = any(row[5] == employee for row in NORTHWIND.employees)
    return {
        "email": ADDRESSES[employee],
        "employee": {
            "id": number,
            "email": ADDRESSES[employee],
            "full_name": f"{first} {last}",
            "job_title": title,
            "role": "manager" if leads else "rep",
            "is_active": True,
        },
        "assignments": [
            {
                "id": NORTHWIND.employee_territories.index((employee, where)) + 1,
                "employee_id": employee,
                "slot_id": int(where),
                "is_primary": where == places[0],
                "starts_on": hired.isoformat(),
                "ends_on": None,
            }
            for where in places
        ],
        "slots": [
            {"id": int(code), "code": code, "name": name, "region_id": region} for code, name, region in territories
        ],
        "regions": [
            {"id": region, "code": name.upper(), "name": name}
            for region, name in NORTHWIND.regions
            if any(row[2] == region for row in territories)
        ],
        "zones": [],
    }
