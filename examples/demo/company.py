"""Who works at the demo's company: people, the slots they hold, and the regions and zones these lie in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count

from ctxmiddleware import Assignment, Employee, Region, Slot, Zone

_REGIONS = {
    ("DE-N", "Germany North"): "Hamburg Bremen Kiel Rostock Hannover",
    ("DE-S", "Germany South"): "Munich Stuttgart Nuremberg Augsburg Ulm",
    ("AT", "Austria"): "Vienna Graz Linz Salzburg Innsbruck",
    ("CH", "Switzerland"): "Zurich Geneva Basel Lausanne Bern",
    ("FR-N", "France North"): "Paris Lille Rouen Reims Strasbourg",
    ("FR-S", "France South"): "Lyon Marseille Nice Toulouse Montpellier",
    ("IT-N", "Italy North"): "Milan Turin Genoa Bologna Verona",
    ("IT-S", "Italy South"): "Naples Bari Palermo Catania Taranto",
    ("ES", "Spain"): "Madrid Barcelona Valencia Seville Bilbao",
    ("PT", "Portugal"): "Lisbon Porto Braga Coimbra Faro",
    ("NL", "Netherlands"): "Amsterdam Rotterdam Utrecht Eindhoven Groningen",
    ("BE", "Belgium"): "Brussels Antwerp Ghent Bruges Liege",
    ("PL", "Poland"): "Warsaw Krakow Gdansk Poznan Wroclaw",
    ("SE", "Sweden"): "Stockholm Gothenburg Malmo Uppsala Vasteras",
    ("DK", "Denmark"): "Copenhagen Aarhus Odense Aalborg Esbjerg",
    ("UK", "United Kingdom"): "London Manchester Leeds Bristol Glasgow",
}
_FIELDS = {"HOS": "Hospitals", "PHA": "Pharmacies", "LAB": "Laboratories"}
_FIRST = (
    "Ana Bruno Carla David Elena Felix Greta Hugo Ines Jonas Katrin Lukas Maria Niels Olga Paul Rita Stefan Teresa Ute "
    "Victor Wanda Yara Zoe Anton Beatriz Clara Daniel Emma Finn Hanna Ivan Julia Karl Laura Marco Nora Oscar Petra Tom"
)
_LAST = (
    "Andersen Bauer Costa Dubois Eriksen Fischer Garcia Hansen Ivanova Jansen Keller Lopez Moreau Novak Oliveira Quinn "
    "Peeters Rossi Santos Taylor Urban Visser Weber Young Zimmermann Almeida Berger Conti Dupont Esposito Ferrari "
    "Silva Gruber Hofer Jensen Kowalski Lehmann Martin Nowak Olsson Petit Ricci Schmidt Thomas Vogel Wagner"
)
_TITLES: dict[str, tuple[str | None, ...]] = {
    "representative": ("Field Representative", "Senior Field Representative", "Account Manager", None),
    "manager": ("Area Manager", "Key Account Manager"),
    "director": ("Regional Director",),
    "analyst": ("Business Analyst", "Data Analyst"),
}
# How many in a hundred have the role, and how many slots they hold at least and at most.
_ROLES = {"representative": (82, 1, 3), "manager": (11, 3, 6), "director": (2, 5, 9), "analyst": (5, 0, 0)}
_TODAY = date(2026, 11, 1)


@dataclass(frozen=True)
class Company:
    """Everything the database and the warehouse are filled with."""

    regions: tuple[Region, ...]
    slots: tuple[Slot, ...]
    employees: tuple[Employee, ...]
    assignments: tuple[Assignment, ...]
    zones: tuple[Zone, ...]

    @classmethod
    def invented(cls, employees: int = 5000, *, seed: int = 1) -> Company:
        """Make one up; the same arguments give the same company.

        Args:
            employees: how many people work there.
            seed: which of the possible companies.
        """
        chance = random.Random(seed)  # noqa: S311 - names and places, no secrets
        regions = tuple(Region(number, code, name) for number, (code, name) in enumerate(_REGIONS, 1))
        slots = tuple(_slots())
        people = tuple(_people(employees, chance))
        return cls(regions, slots, people, tuple(_assignments(people, slots, chance)), tuple(_zones()))

    @property
    def active(self) -> tuple[Employee, ...]:
        """Those who may sign in."""
        return tuple(person for person in self.employees if person.is_active)


def _slots() -> Iterator[Slot]:
    numbers = count(1)
    for region_id, ((region, _), cities) in enumerate(_REGIONS.items(), 1):
        for city in cities.split():
            for field, name in _FIELDS.items():
                yield Slot(next(numbers), f"{region}-{city[:4].upper()}-{field}", f"{name} {city}", region_id)


def _zones() -> Iterator[Zone]:
    for (region, _), cities in _REGIONS.items():
        for city in cities.split():
            for side in ("East", "West"):
                yield Zone(f"{region}-{city[:4].upper()}-{side[0]}", f"{city} {side}", region)


def _people(number: int, chance: random.Random) -> Iterator[Employee]:
    namesakes: dict[str, int] = {}
    first_names, last_names = _FIRST.split(), _LAST.split()
    shares = [share for share, _, _ in _ROLES.values()]
    for identity in range(1, number + 1):
        first, last = chance.choice(first_names), chance.choice(last_names)
        address = f"{first}.{last}".lower()
        namesakes[address] = namesakes.get(address, 0) + 1
        if namesakes[address] > 1:
            address += str(namesakes[address])
        role = chance.choices(list(_ROLES), shares)[0]
        title = chance.choice(_TITLES[role])
        active = chance.random() > 0.06
        yield Employee(identity, f"{address}@example.com", f"{first} {last}", title, role, active)


def _assignments(people: tuple[Employee, ...], slots: tuple[Slot, ...], chance: random.Random) -> Iterator[Assignment]:
    numbers = count(1)
    for person in people:
        for place, slot in enumerate(_held(person, slots, chance)):
            began = _TODAY - timedelta(days=chance.randrange(30, 2500))
            # What somebody worked on before stays in the table with its last day.
            past = place > 0 and chance.random() < 0.2
            ended = began + timedelta(days=chance.randrange(1, 30)) if past else None
            yield Assignment(next(numbers), person.id, slot.id, place == 0, began, ended)


def _held(person: Employee, slots: tuple[Slot, ...], chance: random.Random) -> list[Slot]:
    _, least, most = _ROLES[person.role]
    # Somebody new has none yet.
    if most == 0 or chance.random() < 0.03:
        return []
    home = chance.choice(slots).region_id
    # Directors look after the neighbouring region, too.
    regions = {home, home + 1} if person.role == "director" else {home}
    reachable = [slot for slot in slots if slot.region_id in regions]
    return chance.sample(reachable, chance.randint(least, most))
