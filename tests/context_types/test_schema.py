"""Whether a type whose contexts could come back as others is refused at construction, with the field named."""

from __future__ import annotations

import dataclasses
import enum
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

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
    assert [part.path for part in parts_of(Tree)] == ["", "name", "inside", "inside[]"]
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


T = TypeVar("T")


class Generic1(msgspec.Struct, Generic[T], frozen=True):
    """A generic struct."""

    value: T


@dataclasses.dataclass(frozen=True)
class Generic2(Generic[T]):
    """A generic dataclass."""

    value: T


@dataclasses.dataclass(frozen=True)
class Cached:
    """A list that is made once and then handed out."""

    one: int

    @cached_property
    def many(self) -> list[int]:
        """Return a list."""
        return [self.one]


@pytest.mark.parametrize("kind", [Generic1[int], Generic2[int], _holding(Generic1[str])])
def test_generic_types_are_shared_where_they_are_frozen(kind: Any) -> None:
    """A plugin takes them, and a request gets the one object."""
    assert is_immutable(parts_of(kind))
    ContextPlugin(source=StaticSource({}), context_type=kind, redis="redis://127.0.0.1:1/0")


@pytest.mark.parametrize("kind", [Generic1[list[int]], Generic2[list[int]], Cached])
def test_a_frozen_class_may_hold_what_can_be_changed(kind: Any) -> None:
    """In a type argument, or in a property that keeps its value."""
    assert not is_immutable(parts_of(kind))


class First(enum.Enum):
    """Members by value."""

    A = 1
    B = 2


class Second(enum.Enum):
    """The same members, the other way round."""

    A = 2
    B = 1


def _aliased(one: str, two: str) -> type:
    return pydantic.create_model("Model", one=(bool, pydantic.Field(alias=one)), two=(bool, pydantic.Field(alias=two)))


def _layout(*names: str, **options: Any) -> type:
    return msgspec.defstruct("Rights", [(name, bool) for name in names], **options)


def _with_role(role: Any, kind: Any = str) -> type:
    return msgspec.defstruct("Rights", [("role", kind, role)], omit_defaults=True)


def _twice(*kinds: type) -> type:
    return msgspec.defstruct("Rights", [(f"part{number}", kind) for number, kind in enumerate(kinds)])


TEAM = msgspec.defstruct("Team", [("owner", str), ("member", str)], array_like=True)
ORGANISATION = msgspec.defstruct("Organisation", [("member", str), ("owner", str)], array_like=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NamedTuple("Rights", [("is_active", bool), ("is_admin", bool)]),
         NamedTuple("Rights", [("is_admin", bool), ("is_active", bool)])),
        (_layout("is_active", "is_admin", array_like=True), _layout("is_admin", "is_active", array_like=True)),
        (_layout("a", "b", rename={"a": "x", "b": "y"}), _layout("a", "b", rename={"a": "y", "b": "x"})),
        (_holding(First), _holding(Second)),
        (_holding(bool), _holding(int)),
        (_holding(pydantic.create_model("Model", one=(int, ...))),
         _holding(pydantic.create_model("Model", two=(int, ...)))),
        (_aliased("a", "b"), _aliased("b", "a")),
        (_with_role("viewer"), _with_role("admin")),
        (_holding(Literal["viewer", "owner"]), _holding(Literal["viewer", "admin"])),
        (_holding(tuple[First, bool]), _holding(tuple[Second, bool])),
        (_with_role(frozenset({"a"}), frozenset[str]), _with_role(frozenset({"b"}), frozenset[str])),
        (_twice(TEAM, ORGANISATION, TEAM), _twice(TEAM, ORGANISATION, ORGANISATION)),
    ],
)  # fmt: skip
def test_layouts_that_would_be_read_as_each_other_are_told_apart(one: Any, other: Any) -> None:
    """By names, order and defaults of fields and by members: what one release stored is not read as other rights."""
    assert Serializer(one).described != Serializer(other).described
    assert Serializer(one).described == Serializer(one).described


def test_a_default_is_described_alike_in_every_process() -> None:
    """Whatever order a set has there, and where an object is in memory."""
    kind = _with_role(frozenset("abcdefghij"), frozenset[str])
    assert '["a","b","c","d","e","f","g","h","i","j"]' in Serializer(kind).described.decode()
    made = msgspec.defstruct("Rights", [("names", list[str], msgspec.field(default_factory=list))])
    assert "'list')" in Serializer(made).described.decode()
    assert " at 0x" not in Serializer(_with_role(object(), Path)).described.decode()


@pytest.mark.parametrize("kind", [Any, object, dict, list])
def test_a_field_of_a_pydantic_model_that_could_come_back_as_another_is_refused(kind: Any) -> None:
    """As in a struct, by its name."""
    with pytest.raises(ConfigurationError, match=r"field\S* is (Any|object)"):
        Serializer(pydantic.create_model("Model", field=(kind, ...)))
