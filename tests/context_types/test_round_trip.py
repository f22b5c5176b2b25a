"""Whether contexts of any type that may travel come back from Redis as they were, in values and types."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxmiddleware.context_types.difference import difference
from ctxmiddleware.context_types.serializer import Serializer

from ..matrix import Cases
from .kinds import CONTEXTS, Sort


def test_contexts_of_generated_types_come_back_as_they_were(cases: Cases) -> None:
    """Structs, dataclasses, attrs classes, tuples, typed dictionaries and pydantic models, nested in each other."""
    seen: set[str] = set()

    @settings(
        max_examples=2000 if cases is Cases.FULL else 200,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sort=CONTEXTS, data=st.data())
    def round_trip(sort: Sort, data: st.DataObject) -> None:
        serializer: Serializer[Any] = Serializer(sort.type)
        value = serializer.in_utc(data.draw(sort.values))
        encoded = serializer.encode(value)
        assert encoded is not None
        assert difference(value, serializer.decode(encoded)) is None
        seen.add(type(value).__name__.rstrip("0123456789"))

    round_trip()
    assert seen >= {"Struct", "Data", "Attrs", "Tuple", "dict", "Model"}
