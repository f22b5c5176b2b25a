"""Whether published keys are fetched when they have to be, never more often, and kept while they cannot be."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey

from ctxmiddleware import BadCredential, BearerJWT, FetchTimes, Identity
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.identity.first_of import resolved
from ctxmiddleware.identity.jwt import keys
from ctxmiddleware.identity.jwt.bearer import REMEMBERED_SECONDS
from ctxmiddleware.identity.jwt.document import MAX_BYTES
from ctxmiddleware.testing import FakeClock
from tests.waiting import eventually_async

from .issuer import (
    CLAIMS,
    EC,
    ED,
    ISSUER,
    MALLORY,
    RSA,
    Publisher,
    asked,
    asking,
    b64,
    key_set,
    publishing,
    raw,
    signed,
    wall_clock,
)

pytestmark = pytest.mark.anyio

NEXT = ECKey.generate_key("P-256", {"kid": "next"})
TIMES = FetchTimes(refresh=600, cooldown=30, retry=1)


@pytest.fixture
async def published() -> AsyncIterator[Publisher]:
    """One key."""
    async with publishing(key_set(EC)) as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    """What moves on only where a test says so."""
    return FakeClock()


@pytest.fixture
def bearer(published: Publisher, clock: FakeClock) -> BearerJWT:
    """It refuses what is no good."""
    return _bearer(published, clock)


def _bearer(published: Publisher, clock: FakeClock, **changed: Any) -> BearerJWT:
    return BearerJWT(
        published.url, issuer=ISSUER, wall_clock=wall_clock, clock=clock, times=TIMES, on_bad="refuse", **changed
    )


async def _refused(bearer: BearerJWT, token: str) -> None:
    with pytest.raises(BadCredential):
        await asked(bearer, token)


async def test_the_first_token_fetches_the_keys_and_the_next_ones_do_not(
    bearer: BearerJWT, published: Publisher
) -> None:
    """They need not even wait for a turn of the event loop."""
    assert published.fetches == 0
    assert await asked(bearer, signed())
    for number in range(10):
        assert isinstance(bearer(asking(signed(sub=f"{number}"))), Identity)
    assert published.fetches == 1


async def test_all_who_come_meanwhile_wait_for_one_fetch(bearer: BearerJWT, published: Publisher) -> None:
    """A caller that is cancelled takes nothing from the others."""
    published.gate = anyio.Event()
    answers: list[Identity | None] = []

    async def ask(number: int) -> None:
        answers.append(await asked(bearer, signed(sub=f"{number}")))

    first = anyio.CancelScope()

    async def ask_first() -> None:
        with first:
            await ask(100)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask_first)
        await eventually_async(lambda: published.fetches == 1)
        for number in range(50):
            tasks.start_soon(ask, number)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        published.gate.set()
    assert len(answers) == 50
    assert all(answers)
    assert published.fetches == 1


async def test_keys_are_fetched_again_behind_the_answers(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """Once they are ten minutes old, by the next token that has to be verified, which does not wait for it."""
    await asked(bearer, signed())
    clock.advance(TIMES.refresh - 1)
    assert isinstance(bearer(asking(signed(sub="a"))), Identity)
    assert published.fetches == 1
    clock.advance(1)
    published.gate = anyio.Event()
    assert isinstance(bearer(asking(signed(sub="b"))), Identity)
    await eventually_async(lambda: published.fetches == 2)
    assert isinstance(bearer(asking(signed(sub="c"))), Identity)
    published.gate.set()
    source = bearer._published
    assert source is not None
    await eventually_async(lambda: source.confirmed_at == clock())
    assert isinstance(bearer(asking(signed(sub="d"))), Identity)
    assert published.fetches == 2


async def test_a_new_key_is_found_by_the_first_token_it_signs(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """After the cool-down at the latest, and long before the keys are old."""
    await asked(bearer, signed())
    published.publish(key_set(EC, NEXT))
    await _refused(bearer, signed(NEXT))
    assert published.fetches == 1
    clock.advance(TIMES.cooldown)
    assert await asked(bearer, signed(NEXT))
    assert published.fetches == 2


async def test_a_key_that_is_withdrawn_verifies_nothing_more(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """Neither new tokens nor those that are remembered, once the key set was fetched again."""
    token = signed()
    await asked(bearer, token)
    published.publish(key_set(NEXT))
    clock.advance(TIMES.cooldown)
    assert await asked(bearer, signed(NEXT))
    await _refused(bearer, token)


async def test_a_key_set_that_is_the_same_forgets_nobody(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """What was verified stays remembered, for ten minutes after the keys were confirmed when it was."""
    token = signed()
    first = await asked(bearer, token)
    clock.advance(TIMES.cooldown)
    await _refused(bearer, signed(NEXT))
    assert published.fetches == 2
    assert bearer(asking(token)) is first
    clock.advance(REMEMBERED_SECONDS - TIMES.cooldown)
    again = bearer(asking(token))
    assert again == first
    assert again is not first


async def test_a_storm_of_unknown_keys_costs_one_fetch_a_cooldown(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """However many there are; of their names nothing is kept."""
    await asked(bearer, signed())
    for turn in range(1, 4):
        clock.advance(TIMES.cooldown)
        for number in range(700):
            await _refused(bearer, raw({"alg": "ES256", "kid": f"{turn}.{number}"}, CLAIMS, bytes(64)))
        assert published.fetches == 1 + turn


async def test_a_key_published_after_a_forged_token_is_found_after_the_cooldown(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """A token that was forged with the name of the next key costs its users one cool-down, and no more."""
    await asked(bearer, signed())
    clock.advance(TIMES.cooldown)
    await _refused(bearer, signed(MALLORY, header={"kid": "next"}))
    published.publish(key_set(EC, NEXT))
    clock.advance(TIMES.cooldown - 1)
    await _refused(bearer, signed(NEXT))
    assert published.fetches == 2
    clock.advance(1)
    assert await asked(bearer, signed(NEXT))


@pytest.mark.parametrize("how", ["status", "garbage", "empty", "dropped", "too large", "closed"])
async def test_the_last_good_keys_stay_in_force_through_an_outage(
    bearer: BearerJWT, published: Publisher, clock: FakeClock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it takes, with one line in the log; afterwards they are fetched as before."""
    caplog.set_level(logging.INFO, "ctxmiddleware")
    good = published.body
    await asked(bearer, signed())
    _fail(published, how)
    for turn in range(3):
        clock.advance(TIMES.refresh)
        assert await asked(bearer, signed(sub=f"{turn}"))
        await eventually_async(partial(_is_fetched, bearer, published, turn + 2))
    await eventually_async(lambda: len(caplog.records) == 1)
    assert "those known stay in force" in caplog.text
    published.body, published.status, published.drops = good, 200, False
    assert published.fetches == 4
    clock.advance(TIMES.refresh)
    assert await asked(bearer, signed(sub="again"))
    await eventually_async(lambda: "can be fetched again" in caplog.text)


async def test_after_a_pause_a_withdrawn_key_lets_nobody_in(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """Where nobody came for so long, the first who comes waits for the keys as they are now."""
    await asked(bearer, signed())
    published.publish(key_set(NEXT))
    clock.advance(TIMES.wait)
    await _refused(bearer, signed(sub="late"))
    assert await asked(bearer, signed(NEXT))
    assert published.fetches == 2


async def test_after_an_outage_that_nobody_saw_the_end_of_too(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """That they could not be fetched long ago is no reason to trust them without having tried again."""
    await asked(bearer, signed())
    published.status = 500
    clock.advance(TIMES.wait)
    assert await asked(bearer, signed(sub="meanwhile"))
    assert isinstance(bearer(asking(signed(sub="at once"))), Identity)
    published.status = 200
    published.publish(key_set(NEXT))
    clock.advance(TIMES.wait)
    await _refused(bearer, signed(sub="late"))


async def test_the_last_keys_are_not_in_force_for_ever(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """Whoever keeps them from being fetched keeps a stolen key in force for a day and no longer."""
    await asked(bearer, signed())
    published.status = 500
    clock.advance(TIMES.keep - 1)
    assert await asked(bearer, signed(sub="just"))
    clock.advance(TIMES.cooldown)
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            await asked(bearer, signed(sub="late"))
    published.status = 200
    clock.advance(TIMES.cooldown)
    assert await asked(bearer, signed(sub="again"))


async def test_a_new_key_that_cannot_be_fetched_makes_nobody_anonymous(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """In an outage nobody can say that a token is no good; known keys verify as before, and the new one afterwards."""
    await asked(bearer, signed())
    good, published.status = published.body, 500
    clock.advance(TIMES.cooldown)
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            await asked(bearer, signed(NEXT))
    assert published.fetches == 2
    assert await asked(bearer, signed(sub="known"))
    published.status, published.body = 200, good
    published.publish(key_set(EC, NEXT))
    clock.advance(TIMES.cooldown)
    assert await asked(bearer, signed(NEXT))


async def test_a_key_that_was_unknown_before_an_outage_may_be_good_in_it(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """It may have been published since: the request is a 503, and not anonymous."""
    await asked(bearer, signed())
    clock.advance(TIMES.cooldown)
    await _refused(bearer, signed(NEXT))
    published.status = 500
    clock.advance(TIMES.cooldown)
    with pytest.raises(SourceUnavailable):
        await asked(bearer, signed(EC, header={"kid": "another"}))
    with pytest.raises(SourceUnavailable):
        await asked(bearer, signed(NEXT))
    assert published.fetches == 3


async def test_too_many_keys_are_no_key_set(published: Publisher, clock: FakeClock) -> None:
    """They would be looked through for every token."""
    published.publish(key_set(*[EC] * (keys.MOST_KEYS + 1)))
    with pytest.raises(SourceUnavailable):
        await asked(_bearer(published, clock), signed())


async def test_a_null_in_a_key_set_is_as_good_as_absent(published: Publisher, clock: FakeClock) -> None:
    """Some issuers write null for what they leave out; a private half that is null is none."""
    published.publish(key_set(EC, use=None, key_ops=None, alg=None, d=None))
    assert await asked(_bearer(published, clock), signed()) is not None


def _unnamed(key: ECKey) -> dict[str, object]:
    """Return a key set whose one key has no name."""
    return key_set(key, kid=None)


@pytest.mark.parametrize(
    ("before", "after", "kid"),
    [
        (key_set(EC), key_set(MALLORY), "ec"),
        (key_set(EC), key_set(MALLORY), None),
        (_unnamed(EC), _unnamed(NEXT), None),
    ],
    ids=["one kid", "token without kid", "key set without kid"],
)
async def test_a_key_replaced_under_its_name_is_found_after_the_cooldown(
    published: Publisher, clock: FakeClock, before: object, after: dict[str, Any], kid: str | None
) -> None:
    """A wrong signature by the key of a token's name fetches the key set once more; the old key verifies no more."""
    published.publish(before)
    bearer, new = _bearer(published, clock), MALLORY if after == key_set(MALLORY) else NEXT
    old_token, new_token = signed(header={"kid": kid}), signed(new, header={"kid": kid})
    assert await asked(bearer, old_token)
    published.publish(after)
    await _refused(bearer, new_token)
    assert published.fetches == 1
    clock.advance(TIMES.cooldown)
    assert await asked(bearer, new_token)
    assert published.fetches == 2
    await _refused(bearer, old_token)


async def test_a_token_without_kid_is_verified_once_one_key_of_its_type_remains(
    published: Publisher, clock: FakeClock
) -> None:
    """Neither of two keys of the type fits; the next fetch after the cool-down finds the remaining one."""
    published.publish(key_set(EC, NEXT))
    bearer, token = _bearer(published, clock), signed(NEXT, header={"kid": None})
    await _refused(bearer, token)
    published.publish(key_set(NEXT))
    clock.advance(TIMES.cooldown)
    assert await asked(bearer, token)
    assert published.fetches == 2


async def test_forged_tokens_together_cost_one_fetch_in_each_cooldown(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """Concurrent ones share a fetch, and the valid tokens beside them are verified without one."""
    await asked(bearer, signed())
    for turn in range(1, 4):
        clock.advance(TIMES.cooldown)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(_refused, bearer, signed(MALLORY, sub=f"{turn}.{number}"))
        await _refused(bearer, signed(MALLORY))
        assert isinstance(bearer(asking(signed(sub=f"valid {turn}"))), Identity)
        assert published.fetches == 1 + turn


async def test_a_wrong_signature_is_undecided_while_the_keys_cannot_be_fetched(
    bearer: BearerJWT, published: Publisher, clock: FakeClock
) -> None:
    """The key may have been replaced: the request is a 503 and not anonymous, and refused once the key set is known."""
    await asked(bearer, signed())
    published.status = 500
    clock.advance(TIMES.cooldown)
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            await asked(bearer, signed(MALLORY))
    assert published.fetches == 2
    published.status = 200
    clock.advance(TIMES.cooldown)
    await _refused(bearer, signed(MALLORY))


def _is_fetched(bearer: BearerJWT, published: Publisher, fetches: int) -> bool:
    source = bearer._published
    assert source is not None
    return published.fetches == fetches and source._flight.get() is None


def _fail(published: Publisher, how: str) -> None:
    match how:
        case "status":
            published.status = 503
        case "garbage":
            published.publish(b"\xff<html>")
        case "empty":
            published.publish({"keys": []})
        case "dropped":
            published.drops = True
        case "too large":
            published.publish(json.dumps(key_set(NEXT)).encode() + b" " * MAX_BYTES)
        case _:
            published.status = 302


async def test_without_any_key_an_identified_request_is_unavailable_and_not_anonymous(
    published: Publisher, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Until they can be fetched, which is tried once a second; then all is well at once."""
    bearer, good = _bearer(published, clock), published.body
    published.status = 500
    for turn in range(3):
        for _ in range(5):
            with pytest.raises(SourceUnavailable) as caught:
                await asked(bearer, signed())
            assert caught.value.retry_after == TIMES.retry
        assert published.fetches == turn + 1
        clock.advance(TIMES.retry)
    published.status, published.body = 200, good
    assert await asked(bearer, signed())
    assert caplog.text.count("no user can be identified by a token") == 1


async def test_the_publisher_sends_nobody_elsewhere(published: Publisher, clock: FakeClock) -> None:
    """A redirect is not followed: whoever can answer in its place would publish keys of his own."""
    async with publishing(key_set(NEXT)) as mallory:
        published.status, published.leads_to = 302, mallory.url
        with pytest.raises(SourceUnavailable):
            await asked(_bearer(published, clock), signed(NEXT))
        assert (published.fetches, mallory.fetches) == (1, 0)


async def test_what_cannot_be_a_token_fetches_nothing(bearer: BearerJWT, published: Publisher) -> None:
    """Nor does one whose algorithm no published key could have."""
    for token in ("x", "a.b.c", raw({"alg": "none"}, {}), raw({"alg": "HS256"}, {}, b"x")):
        await _refused(bearer, token)
    assert published.fetches == 0


async def test_a_token_without_the_name_of_its_key_needs_the_only_one_of_its_type(
    published: Publisher, clock: FakeClock
) -> None:
    """Where there are two, none is guessed."""
    bearer = _bearer(published, clock)
    assert await asked(bearer, signed(header={"kid": None}))
    published.publish(key_set(EC, NEXT, RSA))
    bearer = _bearer(published, clock)
    assert await asked(bearer, signed(RSA, "RS256", header={"kid": None}))
    await _refused(bearer, signed(header={"kid": None}))


async def test_of_two_keys_with_one_name_either_may_have_signed(published: Publisher, clock: FakeClock) -> None:
    """As some publish them."""
    twin = ECKey.generate_key("P-256", {"kid": "ec"})
    published.publish(key_set(EC, twin))
    bearer = _bearer(published, clock)
    assert await asked(bearer, signed(sub="a"))
    assert await asked(bearer, signed(twin, sub="b"))


def test_which_published_keys_are_used() -> None:
    """Public ones for signatures, of the types that are understood; the others of the set do no harm."""
    document = key_set(EC, RSA, ED)
    strange: list[object] = [
        {**key_set(EC)["keys"][0], "use": "enc", "kid": "for encryption"},
        {**key_set(EC)["keys"][0], "key_ops": ["sign"], "kid": "for signing"},
        {**key_set(EC)["keys"][0], "key_ops": "verify", "kid": "for one knows what"},
        {**EC.as_dict(private=True), "kid": "with its private half"},
        {**OctKey.import_key("s" * 32).as_dict(), "kid": "a secret"},
        {**key_set(ECKey.generate_key("P-384"))["keys"][0], "kid": "another curve"},
        {**key_set(OKPKey.generate_key("X25519"))["keys"][0], "kid": "for agreement"},
        {**key_set(RSA)["keys"][0], "alg": "PS512", "kid": "another algorithm"},
        {**key_set(RSA)["keys"][0], "n": b64(b"\x7f" * 255), "kid": "short"},
        {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "kid": "no point"},
        {"kty": "AKP", "kid": "of the future"},
        {"kid": "nothing"},
        "text",
        None,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's, of a short key
        found = keys.published({"keys": [*strange, *document["keys"]]})
    assert [(key.name, tuple(key.algorithms)) for key in found] == [
        ("ec", ("ES256",)),
        ("rsa", ("RS256",)),
        ("ed", keys.EDWARDS),
    ]
    stated = keys.published(key_set(EC, alg="ES256"))
    assert [(key.name, tuple(key.algorithms)) for key in stated] == [("ec", ("ES256",))]
    nothing: list[object] = [{"keys": strange}, {"keys": []}, {"keys": {}}, {}, [], None, "keys"]
    for each in nothing:
        with pytest.raises(ValueError, match=r"it is not a JSON Web Key Set|it holds no public key"):
            keys.published(each)


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
async def test_both_names_of_edwards_curve_are_understood(
    published: Publisher, clock: FakeClock, algorithm: str
) -> None:
    """RFC 9864 has given it another one, which some issuers use by now."""
    published.publish(key_set(ED, alg=algorithm))
    assert await asked(_bearer(published, clock), signed(ED, algorithm))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_event_loops_share_what_one_has_fetched(bearer: BearerJWT, published: Publisher) -> None:
    """And one that cannot wait for the other's fetch makes its own."""

    async def other() -> object:
        return await resolved(bearer(asking(signed(sub="other"))))

    published.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked, bearer, signed())
        await eventually_async(lambda: published.fetches == 1)
        tasks.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(other))
        await eventually_async(lambda: published.fetches == 2)
        published.gate.set()
    assert await anyio.to_thread.run_sync(lambda: anyio.run(other))
    assert published.fetches == 2
