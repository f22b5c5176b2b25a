"""Whether bytes that are not ours are a miss, always, and ours come back as they went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmiddleware import JsonValue
from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.redis.codec import MAX_BYTES, VERSION, Codec, NoValue
from ctxmiddleware.errors import ConfigurationError
from ctxmiddleware.model import Assignment, Employee, Region, Slot, UserContext

KEY: Key = ("tenant", "ada@example.org")
FENCE = Fence(b"everyone", b"name")
PLACE = "ctx:{test:00}:v:shape:value"
CODEC = Codec(UserContext, "supabase")
CONTEXT = UserContext(
    "ada@example.org",
    Employee(1, "Ada@example.org", "Ada Zoë", None, "staff", is_active=True),
    (Assignment(5, 1, 7, is_primary=True, starts_on=date(2020, 2, 29), ends_on=None),),
    (Slot(7, "S7", "slot", 3),),
    (Region(3, "R3", "region"),),
)
ENVELOPE = ["version", "shape", "partition", "name", "everyone", "generation", "origin", "lifetime", "kept", "payload"]


def _packed(value: UserContext | None = CONTEXT, changes: dict[str, object] | None = None) -> bytes:
    data = CODEC.pack(KEY, FENCE, Stored(value, "rpc", 900.0), 1_200_000, redis_key=PLACE)
    assert data is not None
    fields = dict(zip(ENVELOPE, msgspec.msgpack.decode(data), strict=True)) | (changes or {})
    return msgspec.msgpack.encode(list(fields.values()))


def _unpacked(data: bytes, *, key: Key = KEY, fence: Fence = FENCE, left_ms: int = 1_000_000) -> object:
    found = CODEC.unpack(data, key, fence, left_ms, redis_key=PLACE)
    return None if isinstance(found, NoValue) else found


@pytest.mark.parametrize("value", [CONTEXT, None], ids=["known", "unknown"])
def test_a_value_comes_back_with_its_age(value: UserContext | None) -> None:
    """A known user's context and the news of an unknown one both return, as old as Redis has kept them."""
    assert _unpacked(_packed(value)) == Stored(value, "rpc", 900.0, 200.0)


@dataclass
class Other:
    email: str


@pytest.mark.parametrize(
    "asked",
    [
        {"key": ("tenant", "bob@example.org")},
        {"key": ("other", "ada@example.org")},
        {"key": ("", "tenant\0ada@example.org")},
        {"fence": Fence(b"everyone", b"later")},
        {"fence": Fence(b"later", b"name")},
        {"fence": Fence(b"name", b"everyone")},
        {"left_ms": -1},
        {"left_ms": -2},
        {"left_ms": 1_200_001},
    ],
    ids=str,
)
def test_asked_for_by_another_or_under_another_generation_it_is_a_miss(asked: dict[str, object]) -> None:
    """Another name, another partition, another generation, no expiry or one that was lengthened: nobody's value."""
    assert _unpacked(_packed()) is not None
    assert _unpacked(_packed(), **asked) is None  # type: ignore[arg-type]  # one of several types, by name


def test_what_was_overtaken_is_told_from_what_is_not_ours() -> None:
    """After an invalidation there are many of the one, and any of the other is worth a look."""
    assert CODEC.unpack(_packed(), KEY, Fence(b"everyone", b"later"), 1_000_000, redis_key=PLACE) is NoValue.OVERTAKEN
    assert CODEC.unpack(_packed(), ("", "bob@example.org"), FENCE, 1_000_000, redis_key=PLACE) is NoValue.FOREIGN
    assert CODEC.unpack(b"junk", KEY, FENCE, 1_000_000, redis_key=PLACE) is NoValue.FOREIGN


@pytest.mark.parametrize(
    "codec",
    [Codec(UserContext, "another source"), Codec(UserContext), Codec(Other, "supabase")],
    ids=["l", "none", "t"],
)
def test_another_source_s_or_type_s_value_is_a_miss(codec: Codec[UserContext]) -> None:
    """Values of another source or another shape are never ours, even under the same key."""
    assert codec.shape != CODEC.shape
    assert codec.unpack(_packed(), KEY, FENCE, 1_000_000, redis_key=PLACE) is NoValue.FOREIGN


@pytest.mark.parametrize(
    "changes",
    [
        {"version": VERSION - 1},
        {"version": VERSION + 1},
        {"version": f"{VERSION}"},
        {"shape": b"12345678"},
        {"shape": "text"},
        {"partition": 7},
        {"name": None},
        {"name": b"ada@example.org"},
        {"origin": 5},
        {"lifetime": -1},
        {"lifetime": 1_200_001},
        {"lifetime": 900.5},
        {"lifetime": 2**64 - 1},
        {"kept": -5},
        {"kept": None},
        {"payload": b""},
        {"payload": b"\xc0"},
        {"payload": b"\xc1"},
        {"payload": b"\x90" * 1000},
        {"payload": b"\x91" * 100_000},
        {"payload": "text"},
        {"payload": msgspec.msgpack.encode({"email": "ada@example.org"})},
        {"payload": msgspec.msgpack.encode(CONTEXT) + b"\xc0"},
        {"extra": 1},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_changed_envelope_is_a_miss(changes: dict[str, object]) -> None:
    """Each field of the envelope is looked at, and so is what is inside and what comes after."""
    assert _unpacked(_packed(changes=changes)) is None


def test_a_payload_of_another_user_s_fields_is_decoded_strictly() -> None:
    """A number in the place of a text is no context."""
    wrong = msgspec.msgpack.encode(msgspec.to_builtins(CONTEXT) | {"email": 5})
    assert _unpacked(_packed(changes={"payload": wrong})) is None


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x9a", b"\xc0", b"\x91" * 1_000_000, b"{}", b"\xdd\xff\xff\xff\xff"])
def test_junk_is_a_miss(data: bytes) -> None:
    """Nothing, a number, an endless nesting, JSON and a list that promises too much are no values."""
    assert _unpacked(data) is None


def test_size_is_checked_before_anything_is_decoded() -> None:
    """More bytes than any value of ours are not looked into, and a value of that size is not stored either."""
    huge = msgspec.structs.replace(CONTEXT, email="x" * MAX_BYTES)
    assert CODEC.pack(KEY, FENCE, Stored(huge, "rpc", 900.0), 1_200_000, redis_key=PLACE) is None
    assert _unpacked(_packed(changes={"origin": "x" * MAX_BYTES})) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_a_miss(data: bytes) -> None:
    """No bytes raise, and none become a value."""
    assert _unpacked(data) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(_JSON, st.sampled_from(ENVELOPE))
def test_any_other_msgpack_is_a_miss(value: object, name: str) -> None:
    """Well-formed msgpack of any shape, alone or in the place of a field, raises nothing and is nobody else's value."""
    assert _unpacked(msgspec.msgpack.encode(value)) is None
    found = _unpacked(_packed(changes={name: value}))
    assert found is None or (isinstance(found, Stored) and found.value in (CONTEXT, None))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_cut_and_flipped_values_never_raise_and_never_become_another_user_s(data: st.DataObject) -> None:
    """Cut anywhere it is a miss; with one bit turned it is a miss or a value still bound to whom it was stored for."""
    packed = _packed()
    assert _unpacked(packed[: data.draw(st.integers(0, len(packed) - 1))]) is None
    place = data.draw(st.integers(0, len(packed) * 8 - 1))
    turned = bytearray(packed)
    turned[place // 8] ^= 1 << place % 8
    _unpacked(bytes(turned))
    assert _unpacked(bytes(turned), key=("tenant", "bob@example.org")) is None


@pytest.mark.parametrize("value", [{"odd": object()}, {"odd": 2**70}, {"odd": "\ud800"}], ids=["type", "int", "text"])
def test_what_msgpack_cannot_hold_is_not_stored_and_raises_nothing(value: dict[str, JsonValue]) -> None:
    """A value that cannot travel is a None; the request goes on with it."""
    codec: Codec[dict[str, JsonValue]] = Codec(dict[str, JsonValue])
    assert codec.pack(KEY, FENCE, Stored(value, "rpc", 900.0), 1_200_000, redis_key=PLACE) is None
    assert codec.pack(("", "\ud800@example.org"), FENCE, Stored({}, "rpc", 900.0), 1_200_000, redis_key=PLACE) is None


def test_a_value_that_holds_itself_is_not_stored() -> None:
    """An endless value ends."""
    endless: dict[str, JsonValue] = {}
    endless["self"] = endless
    codec: Codec[dict[str, JsonValue]] = Codec(dict[str, JsonValue])
    assert codec.pack(KEY, FENCE, Stored(endless, "rpc", 900.0), 1_200_000, redis_key=PLACE) is None


class Opaque:
    pass


@pytest.mark.parametrize("kind", [int | list[int] | tuple[int, ...], Opaque])
def test_types_that_cannot_travel_are_refused_at_once(kind: Any) -> None:
    """A type that cannot be decoded is a configuration error."""
    with pytest.raises(ConfigurationError, match="cannot travel through Redis"):
        Codec(msgspec.defstruct("Never", [("a", kind)]))
