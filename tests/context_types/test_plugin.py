"""Whether a plugin gives the same context from the source, from memory and from Redis, and each request its own."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import anyio
import attrs
import msgspec
import pydantic
import pytest

from ctxmiddleware import CachePolicy, ContextPlugin, JsonValue, SourceMisconfigured, Zone, ZoneSnapshot
from ctxmiddleware.context_types.difference import difference
from ctxmiddleware.testing import StaticSource

from ..backends import asyncio_only
from ..cache.rig import PATIENT

pytestmark = pytest.mark.anyio
ADA = "ada@example.org"


class Role(pydantic.BaseModel):
    """A model of pydantic, inside others too."""

    name: str
    since: datetime


class Struct(msgspec.Struct, frozen=True):
    """Values of many types."""

    role: Role
    amount: Decimal
    key: UUID
    address: IPv4Address
    place: Path
    more: JsonValue
    days: frozenset[int]
    length: timedelta
    raw: bytes


@dataclasses.dataclass
class Data:
    """Can be changed at every depth."""

    names: list[str]
    by_name: dict[str, list[int]]
    inside: list[Data] = dataclasses.field(default_factory=list)


@attrs.define
class Attrs:
    """Of attrs."""

    kinds: set[int]


class Pair(NamedTuple):
    """A tuple."""

    one: int
    two: tuple[str, ...]


class Typed(TypedDict):
    """A dictionary with a schema."""

    one: int
    data: list[int]


EAST = datetime(2024, 6, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2)))
CONTEXTS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "struct": (
        Struct,
        lambda: Struct(
            Role(name="admin", since=EAST), Decimal("1.50"), UUID(int=7), IPv4Address("10.0.0.1"), Path("/a/b"),
            {"a": [1, 2.5, None, {"b": True}]}, frozenset({1, 2}), timedelta(seconds=1.5), b"\x00\xff",
        ),
    ),
    "dataclass": (Data, lambda: Data(["a"], {"b": [1]}, [Data([], {})])),
    "attrs": (Attrs, lambda: Attrs({1, 2})),
    "tuple": (Pair, lambda: Pair(1, ("a",))),
    "typed dict": (Typed, lambda: Typed(one=1, data=[1])),
    "pydantic": (Role, lambda: Role(name="admin", since=EAST)),
    "json": (dict[str, JsonValue], lambda: {"a": [1, {"b": None}]}),
}  # fmt: skip


@asyncio_only
@pytest.mark.parametrize("name", CONTEXTS)
async def test_every_tier_gives_the_same(redis_url: str, name: str) -> None:
    """The source's answer, memory's and another process's from Redis, in values and types, also in their offsets."""
    kind, make = CONTEXTS[name]
    source: StaticSource[Any] = StaticSource({ADA: make()})
    async with AsyncExitStack() as stack:
        plugins = [
            ContextPlugin(source=source, context_type=kind, redis=redis_url, redis_options=PATIENT) for _ in range(2)
        ]
        one, two = [await stack.enter_async_context(plugin) for plugin in plugins]
        answers = [await one.resolve(ADA), await one.resolve(ADA), await two.resolve(ADA), await two.resolve(ADA)]
    assert [each.origin for each in answers] == ["static", "memory", "redis", "memory"]
    assert len(source.calls) == 1
    for answer in answers:
        assert difference(answer.context, make()) is None
        assert repr(answer.context) == repr(answers[0].context)


def _change(context: Data | None) -> None:
    assert context is not None
    context.names.append("root")
    context.by_name["b"].append(9)
    context.inside[0].names.append("root")
    context.inside.clear()


@pytest.fixture
async def plugin() -> AsyncIterator[ContextPlugin[Data]]:
    """A plugin whose contexts can be changed, without Redis."""
    async with ContextPlugin(source=StaticSource({ADA: CONTEXTS["dataclass"][1]()}), context_type=Data) as plugin:
        yield plugin


async def test_a_request_that_changes_its_context_changes_no_other(plugin: ContextPlugin[Data]) -> None:
    """At every depth, by `resolve`, `peek` and `watch`, whether the context was loaded for it or was in memory."""
    expected = CONTEXTS["dataclass"][1]()
    for _ in range(3):
        resolution = await plugin.resolve(ADA)
        assert resolution.context == expected
        _change(resolution.context)
    watched = await anext(plugin.watch(ADA))
    assert watched.context == expected
    _change(watched.context)
    assert (await plugin.resolve(ADA)).context == expected


@asyncio_only
async def test_a_change_reaches_nothing_that_came_from_redis(redis_url: str) -> None:
    """Nor what is stored there."""
    expected = CONTEXTS["dataclass"][1]()
    source = StaticSource({ADA: CONTEXTS["dataclass"][1]()})
    for _ in range(2):
        async with ContextPlugin(source=source, context_type=Data, redis=redis_url, redis_options=PATIENT) as plugin:
            for _ in range(2):
                context = (await plugin.resolve(ADA)).context
                assert context == expected
                _change(context)
    assert len(source.calls) == 1


async def test_without_copies_requests_share_their_context(caplog: pytest.LogCaptureFixture) -> None:
    """`copy=False` is taken with a warning, for contexts that can be changed only."""
    caplog.set_level(logging.WARNING)
    source = StaticSource({ADA: CONTEXTS["dataclass"][1]()})
    async with ContextPlugin(source=source, context_type=Data, copy=False) as plugin:
        assert (await plugin.resolve(ADA)).context is (await plugin.resolve(ADA)).context
    assert [record.message for record in caplog.records] == [
        "contexts of type Data can be changed and are shared by all requests (copy=False)"
    ]
    ContextPlugin(source=StaticSource({ADA: "ada"}), context_type=str, copy=False)
    assert len(caplog.records) == 1


async def test_contexts_that_cannot_be_changed_are_not_copied() -> None:
    """A hit in memory hands out the one object."""
    async with ContextPlugin(source=StaticSource({ADA: Pair(1, ("a",))}), context_type=Pair) as plugin:
        assert (await plugin.resolve(ADA)).context is (await plugin.resolve(ADA)).context


class Plain:
    """A class of the user's own, without equality."""

    def __init__(self, held: object) -> None:
        self.held = held


async def test_a_watch_is_not_woken_by_copies() -> None:
    """Two copies of a class without equality are not equal, and the context has not changed."""
    policy = CachePolicy(ttl=3600)
    async with ContextPlugin(source=StaticSource({ADA: Plain([1])}), context_type=Plain, policy=policy) as plugin:
        watch = plugin.watch(ADA)
        await anext(watch)
        calls = plugin.stats().memory.hits
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.2):
                await anext(watch)
        assert plugin.stats().memory.hits <= calls + 2


async def test_a_context_that_cannot_be_copied_is_refused_with_the_way_out() -> None:
    """A generator inside it cannot be given to two requests."""
    source = StaticSource({ADA: Plain(each for each in [1])})
    async with ContextPlugin(source=source, context_type=Plain) as plugin:
        with pytest.raises(SourceMisconfigured, match="copy=False"):
            await plugin.resolve(ADA)


async def test_a_typed_dictionary_is_a_context() -> None:
    """Another value than a dictionary is not."""
    contexts: dict[str, Any] = {ADA: Typed(one=1, data=[]), "bob@example.org": [1]}
    source: StaticSource[Any] = StaticSource(contexts)
    async with ContextPlugin(source=source, context_type=Typed) as plugin:
        assert (await plugin.resolve(ADA)).context == {"one": 1, "data": []}
        with pytest.raises(SourceMisconfigured, match="gave list where context_type is dict"):
            await plugin.resolve("bob@example.org")


class Base(msgspec.Struct, frozen=True):
    """Cannot be changed."""

    name: str


class Derived(Base, frozen=True):
    """Can be changed, though the declared class cannot."""

    rights: list[str] = []


@dataclasses.dataclass(frozen=True)
class Declared:
    """Cannot be changed."""

    name: str


class Undeclared(Declared):
    """Can be changed in what it does not declare."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.rights: list[str] = []


@pytest.mark.parametrize(("kind", "derived"), [(Base, Derived), (Declared, Undeclared)])
async def test_a_derived_class_that_can_be_changed_is_copied(kind: type[Any], derived: type[Any]) -> None:
    """The declared type says nothing of it."""
    async with ContextPlugin(source=StaticSource({ADA: derived("ada")}), context_type=kind) as plugin:
        for _ in range(2):
            context = (await plugin.resolve(ADA)).context
            assert isinstance(context, derived)
            assert context.rights == []
            context.rights.append("admin")


async def test_a_source_that_changes_what_it_gave_changes_nothing() -> None:
    """What is kept is a copy."""
    given = Data(["a"], {})
    async with ContextPlugin(source=StaticSource({ADA: given}), context_type=Data) as plugin:
        await plugin.resolve(ADA)
        given.names.append("root")
        assert (await plugin.resolve(ADA)).context == Data(["a"], {})


async def test_zones_are_joined_to_a_copy() -> None:
    """Whatever the join changes, the next snapshot is joined to the context as it was loaded."""
    rows = ["1"]

    class Zones:
        async def fetch(self) -> list[Zone]:
            return [Zone(row, row, "N") for row in rows]

    def join(context: Data, snapshot: ZoneSnapshot) -> Data:
        context.names.extend(zone.id for zone in snapshot.zones_of(["N"]))
        return context

    source = StaticSource({ADA: Data([], {})})
    async with ContextPlugin(source=source, context_type=Data, zones=Zones(), zones_for=join) as plugin:
        await plugin.zones_loaded()
        assert (await plugin.resolve(ADA)).context == Data(["1"], {})
        rows[:] = ["2"]
        assert plugin._assembly.zones is not None
        await plugin._assembly.zones.refresh()
        assert (await plugin.resolve(ADA)).context == Data(["2"], {})
