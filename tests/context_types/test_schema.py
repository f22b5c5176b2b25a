"""Whether a type whose contexts could come back as others is refused at construction, with the field named."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address
from typing import Any, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from ctxmiddleware import ConfigurationError, ContextPlugin, JsonValue, UserContext
from ctxmiddleware.context_types.schema import is_immutable, parts_of
from ctxmiddleware.context_types.serializer import Serializer
from ctxmiddleware.testing import StaticSource


class Plain:
    """A class without fields that could be seen."""


@dataclasses.dataclass(frozen=True)
class Team:
    """Part of a context."""

    members: tuple[Any, ...]


class Unresolved(msgspec.Struct):
    """A field's type is nowhere."""

    missing: Nowhere  # type: ignore[name-defined]  # noqa: F821 - that is the point


def _holding(kind: Any) -> type:
    return msgspec.defstruct("Holding", [("field", kind)], frozen=True)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (_holding(Any), "field is Any, which comes back as another type: give its type, or JsonValue"),
        (_holding(object), "field is object"),
        (_holding(dict), "field{} is Any"),
        (_holding(list), "field[] is Any"),
        (_holding(dict[str, Any]), "field{} is Any"),
        (_holding(Plain), "field is Plain, which has no fields that could be stored"),
        (_holding(Team), "field.members[] is Any"),
        (_holding(list[Team | None]), "field[].members[] is Any"),
        (_holding(msgspec.Raw), "field is Raw"),
        (_holding(int | list[int] | tuple[int, ...]), "may not contain more than one array-like"),
        (Unresolved, "name 'Nowhere' is not defined"),
        (Plain, "it is Plain"),
        (dict, "{} is Any"),
        (Any, "it is Any"),
    ],
)
def test_types_that_could_come_back_as_others_are_refused(kind: Any, fault: str) -> None:
    """By a plugin with Redis, before anything is opened; without Redis they are kept as they are."""
    with pytest.raises(ConfigurationError) as refused:
        ContextPlugin(source=StaticSource({}), context_type=kind, redis="redis://127.0.0.1:1/0")
    assert "cannot travel through Redis" in str(refused.value)
    assert fault in str(refused.value)
    ContextPlugin(source=StaticSource({}), context_type=kind)


def test_all_fields_are_named_at_once() -> None:
    """One after the other they would cost a start each."""
    kind = msgspec.defstruct("Many", [("one", Any), ("two", object), ("three", int)])
    with pytest.raises(ConfigurationError) as refused:
        Serializer(kind)
    assert len(refused.value.faults) == 2


def test_a_type_that_holds_itself_is_read_once() -> None:
    """A tree of members is no endless type."""
    assert [part.path for part in parts_of(Tree)] == ["", "name", "inside"]
    serializer: Serializer[Tree] = Serializer(Tree)
    tree = Tree("a", [Tree("b", [])])
    encoded = serializer.encode(tree)
    assert encoded is not None
    assert serializer.decode(encoded) == tree


class Tree(msgspec.Struct):
    """Holds itself."""

    name: str
    inside: list[Tree]


class Frozen(msgspec.Struct, frozen=True):
    """All its parts are immutable."""

    names: tuple[str, ...]
    address: IPv4Address
    kinds: frozenset[int]


class Pair(NamedTuple):
    """A tuple with a list in it."""

    one: int
    many: list[int]


class Typed(TypedDict):
    """A dictionary."""

    one: int


class Model(pydantic.BaseModel):
    """A model of pydantic."""

    one: int


@dataclasses.dataclass
class Thawed:
    """Fields that can be set."""

    one: int


@attrs.frozen
class AttrsFrozen:
    """Of attrs, and frozen."""

    one: int


@attrs.define
class AttrsThawed:
    """Of attrs, and not frozen."""

    one: int


@pytest.mark.parametrize("kind", [str, int, UserContext, Frozen, AttrsFrozen, tuple[Frozen, ...]])
def test_what_cannot_be_changed_is_shared(kind: Any) -> None:
    """Requests get the one object that memory holds."""
    assert is_immutable(parts_of(kind))


@pytest.mark.parametrize(
    "kind",
    [Pair, Typed, Model, Thawed, AttrsThawed, Tree, list[int], set[int], dict[str, int], bytearray, JsonValue,
     _holding(list[int]), _holding(Thawed), _holding(Model), tuple[Thawed, ...]],
)  # fmt: skip
def test_what_can_be_changed_at_any_depth_is_not(kind: Any) -> None:
    """A list in a frozen struct is as mutable as the list."""
    assert not is_immutable(parts_of(kind))
