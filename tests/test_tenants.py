"""Whether tenants, identity providers and kinds of identities share nothing but the invalidation of one name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import redis

from ctxmiddleware import (
    BatchSource,
    BearerJWT,
    ContextPlugin,
    Identity,
    Loaded,
    SourceError,
    SourceMisconfigured,
    SourceUnavailable,
    UserContextMiddleware,
    first_of,
)
from ctxmiddleware.cache.redis.keys import KeySpace

from .asgi import ask, http_scope
from .backends import ASYNCIO, asyncio_only
from .cache.rig import PATIENT
from .identity.issuer import EC, ISSUER, MALLORY, OCT, SECRET, asking, key_set, publishing, signed, wall_clock

ADA = "ada@example.org"
TENANTS = ("", "acme", "other", "acme\x00ada", "a")
IDENTITIES = [Identity(ADA, tenant=tenant) for tenant in TENANTS]

pytestmark = pytest.mark.anyio


class Numbered:
    """A source whose every answer is another one."""

    label = "numbered"

    def __init__(self, begin: int) -> None:
        self.last = begin

    async def fetch(self, identity: Identity) -> Loaded[str]:
        """Return the next number."""
        await anyio.lowlevel.checkpoint()
        self.last += 1
        return Loaded(f"{self.last}", origin="db")


@dataclass
class Pair:
    """Two processes that share a Redis."""

    one: ContextPlugin[str]
    two: ContextPlugin[str]


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[Pair]:
    """Two plugins as two processes have them."""
    async with AsyncExitStack() as stack:
        plugins = [
            await stack.enter_async_context(
                ContextPlugin(source=Numbered(begin), context_type=str, redis=redis_url, redis_options=PATIENT)
            )
            for begin in (0, 1000)
        ]
        yield Pair(*plugins)


async def _of_each(plugin: ContextPlugin[str]) -> list[str | None]:
    found: dict[str, str | None] = {}

    async def resolve(identity: Identity) -> None:
        found[identity.tenant] = (await plugin.resolve(identity)).context

    async with anyio.create_task_group() as tasks:
        for identity in IDENTITIES:
            tasks.start_soon(resolve, identity)
    return [found[tenant] for tenant in TENANTS]


@asyncio_only
async def test_each_has_his_own_in_memory_and_in_redis(pair: Pair, redis_url: str) -> None:
    """Loaded once each, though they ask at the same moment; the other process finds each one's own."""
    first = await _of_each(pair.one)
    assert sorted(first, key=str) == ["1", "2", "3", "4", "5"]
    assert await _of_each(pair.one) == first
    assert await _of_each(pair.two) == first
    with redis.Redis.from_url(redis_url) as client:
        assert len([key for key in client.scan_iter() if b":v:" in key]) == len(TENANTS)


@asyncio_only
async def test_an_invalidation_of_the_address_reaches_all_of_them(pair: Pair) -> None:
    """In both processes; each is loaded again."""
    first = await _of_each(pair.one)
    assert await _of_each(pair.two) == first
    await pair.two.invalidate(ADA)
    again = await _of_each(pair.one)
    assert set(again).isdisjoint(first)
    assert len(set(again)) == len(TENANTS)
    assert await _of_each(pair.two) == again


@asyncio_only
async def test_one_s_value_under_another_s_key_is_nobody_s(pair: Pair, redis_url: str) -> None:
    """Whoever can write to Redis cannot hand one tenant's context to another by copying it."""
    assert await _of_each(pair.one)
    assert pair.one._assembly.redis is not None
    keys = KeySpace("default", pair.one._assembly.redis.codec.shape)
    values = [keys.of(identity.cache_key).value for identity in IDENTITIES]
    with redis.Redis.from_url(redis_url) as client:
        client.set(values[1], client.get(values[0]) or b"", keepttl=True)
    context = (await pair.two.resolve(IDENTITIES[1])).context
    assert context is not None
    assert int(context) > 1000


@asyncio_only
async def test_watchers_are_told_of_their_own(pair: Pair) -> None:
    """An invalidation wakes both, and each gets what is his."""
    watches = [pair.one.watch(identity) for identity in IDENTITIES[:2]]
    before = [(await anext(watch)).context for watch in watches]
    await pair.two.invalidate(ADA)
    after = [(await anext(watch)).context for watch in watches]
    assert len({*before, *after}) == 4
    assert after == [(await pair.one.resolve(identity)).context for identity in IDENTITIES[:2]]


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_two_identity_providers_know_two_people_by_one_address() -> None:
    """The second one's signature says nothing of the first one's users."""
    contexts: list[object] = []

    async def app(scope: object, receive: object, send: object) -> None:
        contexts.append(scope["user_context"])  # type: ignore[index]  # a mapping, as all scopes are

    async with publishing(key_set(EC)) as published:
        ways = first_of(
            BearerJWT(published.url, issuer=ISSUER, tenant="one", wall_clock=wall_clock),
            BearerJWT(secret=SECRET, issuer="https://other.example", tenant="two", wall_clock=wall_clock),
        )
        plugin = ContextPlugin(source=Numbered(0), context_type=str, identify=ways)
        middleware = UserContextMiddleware(app, plugin=plugin)
        one, two = signed(), signed(OCT, "HS256", iss="https://other.example")
        # Signed by the one, in the name of the other; and by nobody who is known.
        strange = signed(iss="https://other.example"), signed(OCT, "HS256"), signed(MALLORY)
        async with plugin:
            for token in (one, two, one, two, *strange):
                await ask(middleware, {**http_scope("/"), "headers": asking(token)["headers"]})
    assert contexts == ["1", "2", "1", "2", None, None, None]


# Equal texts, and texts that differ by the letter that tells the kinds apart in a key.
KEYED_ALIKE = [
    identity
    for text in (ADA, f"e{ADA}", f"s{ADA}")
    for tenant in TENANTS
    for identity in (Identity(text, tenant=tenant), Identity(subject=text, tenant=tenant))
]


async def _found(plugin: ContextPlugin[str], identities: Sequence[Identity]) -> dict[Identity, str | None]:
    found: dict[Identity, str | None] = {}

    async def resolve(identity: Identity) -> None:
        found[identity] = (await plugin.resolve(identity)).context

    async with anyio.create_task_group() as tasks:
        for identity in identities:
            tasks.start_soon(resolve, identity)
    return found


@asyncio_only
async def test_subjects_and_addresses_of_one_text_share_nothing(pair: Pair, redis_url: str) -> None:
    """Each tenant, kind and text is a load of its own, and the other process finds it in Redis under its own key."""
    first = await _found(pair.one, KEYED_ALIKE)
    assert len(set(first.values())) == len(KEYED_ALIKE)
    assert await _found(pair.one, KEYED_ALIKE) == first
    assert await _found(pair.two, KEYED_ALIKE[::-1]) == first
    with redis.Redis.from_url(redis_url) as client:
        assert len([key for key in client.scan_iter() if b":v:" in key]) == len(KEYED_ALIKE)


@asyncio_only
@pytest.mark.parametrize("kind", ["email", "subject"])
async def test_an_invalidation_reaches_one_kind_in_every_tenant(pair: Pair, kind: str) -> None:
    """An invalidated subject is loaded again in all tenants and both processes, and no address is, and conversely."""
    first = await _found(pair.one, KEYED_ALIKE)
    assert await _found(pair.two, KEYED_ALIKE) == first
    named = Identity(subject=ADA, tenant="acme") if kind == "subject" else f" {ADA.upper()}"
    await pair.two.invalidate(named)
    again = await _found(pair.one, KEYED_ALIKE)
    assert await _found(pair.two, KEYED_ALIKE) == again
    assert len(set(again.values())) == len(KEYED_ALIKE)
    moved = {identity for identity in KEYED_ALIKE if again[identity] != first[identity]}
    assert moved == {identity for identity in KEYED_ALIKE if (identity.key, identity.name) == (kind, ADA)}


@asyncio_only
async def test_a_subject_in_another_spelling_is_not_invalidated(pair: Pair) -> None:
    """Subjects are compared byte for byte."""
    subjects = [Identity(subject="aB3"), Identity(subject="Ab3"), Identity(subject=" aB3")]
    first = await _found(pair.one, subjects)
    await pair.one.invalidate(Identity(subject="aB3"))
    again = await _found(pair.one, subjects)
    assert [first[each] == again[each] for each in subjects] == [False, True, True]


class Batches(BatchSource[str]):
    """A source that records its identities, and answers with an identity's tenant, kind and name.

    Args:
        spell: returns the identities that a batch's answer has for one.
    """

    def __init__(self, spell: Callable[[Identity], Sequence[Identity]] = lambda identity: [identity]) -> None:
        self._spell = spell
        self.fetched: list[Identity] = []
        self.batches: list[Sequence[Identity]] = []

    async def fetch(self, identity: Identity) -> str:
        """Return one context."""
        self.fetched.append(identity)
        return _text_of(identity)

    async def fetch_many(self, identities: Sequence[Identity]) -> Mapping[Identity, str]:
        """Return several contexts."""
        self.batches.append(identities)
        return {spelled: _text_of(each) for each in identities for spelled in self._spell(each)}


def _text_of(identity: Identity) -> str:
    return repr((identity.tenant, identity.key, identity.name))


# As an `identify` gives them, with all that a token has, and what the source is given of each.
OF_TOKENS = {
    Identity(f" {ADA.upper()}", tenant="acme", subject="auth0|7", expires_at=4e9): Identity(ADA, tenant="acme"),
    Identity(ADA.title(), tenant="other", subject="7", expires_at=4e9): Identity(ADA, tenant="other"),
    Identity("bob@example.org", subject="Bob", tenant="acme", key="subject"): Identity(subject="Bob", tenant="acme"),
    Identity(subject=ADA, expires_at=4e9): Identity(subject=ADA),
}


@pytest.mark.parametrize(("asked", "given"), OF_TOKENS.items())
async def test_a_source_is_given_what_a_context_is_kept_under(asked: Identity, given: Identity) -> None:
    """The tenant and the key, and no other field of the caller's token."""
    source = Batches()
    async with ContextPlugin(source=source, context_type=str) as plugin:
        assert (await plugin.resolve(asked)).context == _text_of(given)
    assert source.fetched == [given]


async def test_a_batch_has_an_identity_for_each_tenant_and_kind() -> None:
    """Two tenants with one address, asked at the same moment, are two identities of one call."""
    source = Batches()
    async with ContextPlugin(source=source, context_type=str) as plugin:
        found = await _found(plugin, [*OF_TOKENS, *OF_TOKENS.values()])
    assert all(found[asked] == found[given] == _text_of(given) for asked, given in OF_TOKENS.items())
    (batch,) = source.batches
    assert len(batch) == len(OF_TOKENS)
    assert set(batch) == set(OF_TOKENS.values())


def _spelled_anew(identity: Identity) -> list[Identity]:
    if identity.key == "subject":
        return [Identity("x@example.org", subject=identity.name, tenant=identity.tenant, key="subject", expires_at=1)]
    return [Identity(f"\t{identity.name.upper()} ", subject="another", tenant=identity.tenant, expires_at=1)]


async def test_answers_are_matched_by_tenant_kind_and_key() -> None:
    """A source may answer with identities that it builds itself, in another spelling and with other fields."""
    async with ContextPlugin(source=Batches(_spelled_anew), context_type=str) as plugin:
        found = await _found(plugin, list(OF_TOKENS.values()))
    assert found == {given: _text_of(given) for given in OF_TOKENS.values()}


@pytest.mark.parametrize(
    "changed",
    [
        lambda each: Identity(each.name, tenant="another"),
        lambda each: Identity(subject=each.name, tenant=each.tenant),
        lambda each: Identity(f"x{each.name}", tenant=each.tenant),
    ],
    ids=["tenant", "kind", "name"],
)
async def test_the_answer_for_another_identity_is_no_answer(changed: Callable[[Identity], Identity]) -> None:
    """An identity that only an answer of another tenant, kind or name resembles is left out: an error, and not None."""
    source = Batches(lambda each: [changed(each) if each.tenant == "acme" else each])
    errors: list[Exception] = []
    async with ContextPlugin(source=source, context_type=str) as plugin:

        async def resolve(identity: Identity) -> None:
            try:
                assert (await plugin.resolve(identity)).context == _text_of(identity)
            except SourceError as error:
                assert identity.tenant == "acme"
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for tenant in ("acme", "other"):
                tasks.start_soon(resolve, Identity(ADA, tenant=tenant))
    (error,) = errors
    assert "leaves out an identity" in str(error)


async def test_two_answers_for_one_identity_are_its_error_alone() -> None:
    """Which of the two is right cannot be known; the rest of the batch is served."""
    source = Batches(lambda each: [each, *_spelled_anew(each)] if each.tenant == "acme" else [each])
    errors: list[SourceError] = []
    served: list[str | None] = []
    async with ContextPlugin(source=source, context_type=str) as plugin:

        async def resolve(identity: Identity) -> None:
            try:
                served.append((await plugin.resolve(identity)).context)
            except SourceError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for tenant in ("acme", "other", ""):
                tasks.start_soon(resolve, Identity(ADA, tenant=tenant))
        assert plugin.peek(Identity(ADA, tenant="acme")) is None
    assert sorted(map(str, served)) == sorted(_text_of(Identity(ADA, tenant=tenant)) for tenant in ("other", ""))
    (error,) = errors
    assert not isinstance(error, SourceUnavailable)
    assert "several contexts for one identity" in str(error)
    assert ADA not in str(error)


async def test_a_mapping_by_texts_is_a_source_that_is_misconfigured() -> None:
    """An address alone does not say of which tenant it is; the error names what the mapping is by."""

    class ByAddress(Batches):
        async def fetch_many(self, identities: Sequence[Identity]) -> Any:
            return {each.name: _text_of(each) for each in identities}

    errors: list[SourceMisconfigured] = []
    async with ContextPlugin(source=ByAddress(), context_type=str) as plugin:

        async def resolve(identity: Identity) -> None:
            with pytest.raises(SourceMisconfigured) as caught:
                await plugin.resolve(identity)
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for identity in OF_TOKENS.values():
                tasks.start_soon(resolve, identity)
    assert {str(error) for error in errors} == {
        "the source's fetch_many gave a mapping by str; it gives one by identity"
    }
