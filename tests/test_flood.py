"""Whether a flood of identities that are forged, or of nobody, harms those who are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import pytest

from ctxmiddleware import BearerJWT, CachePolicy, ContextPlugin, Identity, UserContext, UserContextMiddleware

from .asgi import ask, http_scope, no_lifespan
from .identity.issuer import EC, ISSUER, MALLORY, asking, key_set, publishing, raw, signed, wall_clock
from .matrix import Cases
from .people import context_of

pytestmark = pytest.mark.anyio

REAL = [f"user{number}@example.org" for number in range(300)]
POLICY = CachePolicy(max_users=400, max_unknown=1000, max_bytes=4 * 1024 * 1024, max_loads=4, max_waiting=2000)


class Company:
    """A source that knows its people, and counts how it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.calls = self.running = self.most_at_once = 0

    async def fetch(self, identity: Identity) -> UserContext | None:
        """Return one."""
        return (await self.fetch_many([identity]))[identity]

    async def fetch_many(self, identities: Sequence[Identity]) -> Mapping[Identity, UserContext | None]:
        """Return many."""
        self.calls += 1
        self.asked += (each.name for each in identities)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await anyio.sleep(0.001)
        self.running -= 1
        return {each: context_of(each.name) if each.name.startswith("user") else None for each in identities}


async def _ask_all(plugin: ContextPlugin[UserContext], emails: Sequence[str], at_once: int = 500) -> None:
    left = iter(emails)

    async def work() -> None:
        for email in left:
            await plugin.resolve(Identity(email))

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(work)


async def test_users_who_do_not_exist_push_nobody_out_and_do_not_overrun_the_source(cases: Cases) -> None:
    """They take the room that is theirs, the real ones are found in memory as before, and few calls are under way."""
    flood = 6_000 if cases is Cases.FULL else 2_000
    company = Company()
    plugin = ContextPlugin(source=company, policy=POLICY)
    async with plugin:
        await _ask_all(plugin, REAL)
        await _ask_all(plugin, REAL)
        before = len(company.asked)
        assert before == len(REAL)
        await _ask_all(plugin, [f"nobody{number}@example.org" for number in range(flood)])
        assert len(company.asked) == before + flood
        # A hundred to a call, and never more at a time than was allowed.
        assert company.calls < flood / 20
        assert company.most_at_once <= POLICY.max_loads
        memory = plugin.stats().memory
        assert memory.entries <= len(REAL) + POLICY.max_unknown
        assert memory.bytes <= POLICY.max_bytes
        await _ask_all(plugin, REAL)
        assert len(company.asked) == before + flood


async def test_one_who_does_not_exist_and_asks_again_and_again_costs_one_look() -> None:
    """For as long as that is remembered."""
    company = Company()
    plugin = ContextPlugin(source=company, policy=POLICY)
    async with plugin:
        await _ask_all(plugin, ["nobody@example.org"] * 5000)
    assert company.asked == ["nobody@example.org"]


async def test_forged_tokens_reach_neither_the_source_nor_any_memory() -> None:
    """Whatever is wrong with them; a real user among them is served."""
    company = Company()
    async with publishing(key_set(EC)) as published:
        identify = BearerJWT(published.url, issuer=ISSUER, wall_clock=wall_clock)
        plugin = ContextPlugin(source=company, identify=identify, policy=POLICY)
        app = UserContextMiddleware(no_lifespan, plugin=plugin, required=True)
        async with plugin:
            good = {**http_scope("/"), "headers": asking(signed(email=REAL[0]))["headers"]}
            assert (await ask(app, good)).status == 200
            for number in range(500):
                for token in (
                    raw({"alg": "ES256", "kid": f"kid {number}"}, {"email": REAL[1]}, bytes(64)),
                    raw({"alg": "none"}, {"email": f"user{number}@example.org"}),
                    f"{number}.x.y",
                ):
                    scope = {**http_scope("/"), "headers": asking(token)["headers"]}
                    assert (await ask(app, scope)).status == 401
            forged = signed(MALLORY, email=REAL[2])
            assert (await ask(app, {**http_scope("/"), "headers": asking(forged)["headers"]})).status == 401
            assert (await ask(app, good)).status == 200
        assert company.asked == [REAL[0]]
        assert (published.fetches, len(identify._remembered)) == (1, 1)
        assert plugin.stats().memory.entries == 1
