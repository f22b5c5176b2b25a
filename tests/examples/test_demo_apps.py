"""Whether the app without the middleware and the one with it give the same answers to everybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec
import pytest
from starlette.testclient import TestClient

from examples.demo import app, before, rig
from examples.demo.company import Company
from examples.demo.tokens import signed
from examples.servers import Postgres, SupabaseProject
from examples.servers.bigquery import BigQueryStandIn
from tests.waiting import eventually

SECRET = "s" * 32
ADMIN = {"Authorization": f"Bearer {'a' * 20}"}


@dataclass(frozen=True)
class Both:
    """Clients of both apps, on the same servers."""

    before: TestClient
    after: TestClient
    company: Company

    def ask(self, path: str, token: str) -> list[tuple[int, bytes, str | None]]:
        """Return the answers of both."""
        headers = {"Authorization": f"Bearer {token}"}
        answers = [client.get(path, headers=headers) for client in (self.before, self.after)]
        return [(answer.status_code, answer.content, answer.headers.get("www-authenticate")) for answer in answers]


@pytest.fixture(scope="module")
def both(postgres: Postgres) -> Iterator[Both]:
    """Both apps, with their lifespans run and the zones read."""
    company = Company.invented(300)
    tables = {rig.ZONES_TABLE: [msgspec.structs.asdict(zone) for zone in company.zones]}
    with ExitStack() as exits:
        project = exits.enter_context(SupabaseProject.start(postgres, database="demo"))
        rig.fill(project.dsn, company)
        front = exits.enter_context(project.front())
        warehouse = exits.enter_context(BigQueryStandIn.start(tables))
        # The clients of the warehouse read this one from the process's own environment.
        exits.enter_context(pytest.MonkeyPatch.context()).setenv("BIGQUERY_EMULATOR_HOST", warehouse.url)
        environ = rig.Rig(project, front, None, warehouse).environ()
        environ |= {"TOKEN_SECRET": SECRET, "CTX_ADMIN_TOKEN": "a" * 20}
        clients = [exits.enter_context(TestClient(module.create_app(environ))) for module in (before, app)]
        eventually(lambda: clients[1].get("/api/admin/cache/stats", headers=ADMIN).json()["zones"]["state"] == "ready")
        yield Both(clients[0], clients[1], company)


def test_the_same_answers(both: Both) -> None:
    """To sixty people, those who left and those who work on nothing among them, byte by byte, cached or not."""
    statuses = set()
    for person in both.company.employees[:60]:
        token = signed(person.email, SECRET)
        first, second = both.ask("/me", token)
        assert first == second
        again, cached = both.ask("/me", token)
        assert cached == again == first
        statuses.add(first[0])
    assert statuses == {200, 403}


def test_the_same_regions(both: Both) -> None:
    """Everybody sees the zones of their own regions, and no others, in both apps."""
    statuses = set()
    for person in both.company.employees[:10]:
        for region in both.company.regions[:5]:
            first, second = both.ask(f"/regions/{region.code}", signed(person.email, SECRET))
            assert first == second
            statuses.add(first[0])
    assert statuses == {200, 403}


@pytest.mark.parametrize(
    "token",
    [
        signed("stranger@example.com", SECRET),
        signed("ana@example.com", SECRET, lasts=-60),
        signed("ana@example.com", "another" * 8),
        "not.a.token",
        "",
        "a" * 20,
    ],
    ids=["stranger", "expired", "another-key", "no-token", "empty", "the-admins"],
)
def test_the_same_refusals(both: Both, token: str) -> None:
    """Strangers, and whoever sends a token that is not right, are refused by both in the same words."""
    first, second = both.ask("/me", token)
    assert first == second
    assert first[0] in (401, 403)


def test_nobody(both: Both) -> None:
    """Without a token both say 401, and both are healthy."""
    for client in (both.before, both.after):
        answer = client.get("/me")
        assert (answer.status_code, answer.text) == (401, "Not authenticated")
        assert client.get("/health").text == "ok"


def test_the_admin_needs_its_own_token(both: Both) -> None:
    """A user's token does not open the cache's admin, and the admin's token makes nobody a user."""
    token = signed(both.company.active[0].email, SECRET)
    refused = both.after.get("/api/admin/cache/stats", headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 401
    assert both.after.get("/api/admin/cache/stats", headers=ADMIN).status_code == 200
    assert both.after.get("/me", headers=ADMIN).status_code == 401
