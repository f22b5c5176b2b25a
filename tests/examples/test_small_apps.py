"""Whether the small example apps do what they are there to show."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from ctxmiddleware import ContextPlugin, Employee, Region, Slot, UserContext
from ctxmiddleware.testing import StaticSource
from examples import fastapi_app, own_source, websocket
from examples.demo.tokens import signed
from tests.waiting import eventually

SECRET = "s" * 32


def context(identity: int, name: str, role: str) -> UserContext:
    """Return the context of somebody in region NO."""
    email = f"{name.lower()}@example.com"
    slot, region = Slot(7, "NO-7", "North 7", 1), Region(1, "NO", "North")
    return UserContext(email, Employee(identity, email, name, None, role, is_active=True), (), (slot,), (region,))


PEOPLE = {each.email: each for each in (context(1, "Ana", "manager"), context(2, "Bo", "representative"))}


def bearer(name: str) -> dict[str, str]:
    """Return the header of somebody's token."""
    return {"Authorization": f"Bearer {signed(f'{name}@example.com', SECRET)}"}


@pytest.fixture
def fastapi() -> Iterator[TestClient]:
    """The FastAPI app, on a source that needs no server."""
    app = fastapi_app.create_app({"TOKEN_SECRET": SECRET}, source=StaticSource(PEOPLE))
    with TestClient(app) as client:
        yield client


def test_fastapi_depends_on_the_context(fastapi: TestClient) -> None:
    """Routes take the context as a dependency, and dependencies of one's own build on it."""
    assert fastapi.get("/me", headers=bearer("ana")).json() == {"name": "Ana", "zones": []}
    assert fastapi.get("/team", headers=bearer("ana")).json() == ["NO-7"]
    assert fastapi.get("/team", headers=bearer("bo")).status_code == 403


def test_fastapi_lets_nobody_in_without_a_context(fastapi: TestClient) -> None:
    """Anonymous requests are 401, strangers 403, and what is excluded is open."""
    assert fastapi.get("/me").status_code == 401
    assert fastapi.get("/me", headers=bearer("eve")).status_code == 403
    assert fastapi.get("/health").json() == "ok"


def test_fastapi_describes_itself(fastapi: TestClient) -> None:
    """The dependency leaves no trace in the OpenAPI document: no parameter, no body."""
    described = fastapi.get("/openapi.json", headers=bearer("ana")).json()["paths"]["/me"]["get"]
    assert described.keys() == {"summary", "operationId", "responses"}


@pytest.fixture
def members(tmp_path: Path) -> Path:
    """A file with one member and her boats."""
    path = tmp_path / "members.db"
    with sqlite3.connect(path) as database:
        database.executescript("""
            CREATE TABLE members (email TEXT, name TEXT, plan TEXT);
            CREATE TABLE boats (email TEXT, name TEXT);
            INSERT INTO members VALUES ('ana@example.com', 'Ana', 'gold');
            INSERT INTO boats VALUES ('ana@example.com', 'Zephyr'), ('ana@example.com', 'Albatross');
        """)
    database.close()
    return path


def test_a_source_and_contexts_of_ones_own(members: Path) -> None:
    """Its own type of context is loaded once and served from memory, even when the source is gone."""
    with TestClient(own_source.create_app(members)) as client:
        answers = [
            client.get("/boats", headers={"X-Member": email}) for email in ("ana@example.com", "Ana@Example.com")
        ]
        assert client.get("/boats", headers={"X-Member": "eve@example.com"}).status_code == 403
        assert client.get("/boats").status_code == 401
        members.unlink()
        answers.append(client.get("/boats", headers={"X-Member": "ana@example.com"}))
        unavailable = client.get("/boats", headers={"X-Member": "bo@example.com"})
    assert {answer.text for answer in answers} == {'{"name":"Ana","boats":["Albatross","Zephyr"]}'}
    assert (unavailable.status_code, unavailable.headers["retry-after"]) == (503, "5")


def test_a_source_of_ones_own_shares_its_contexts(members: Path, redis_url: str) -> None:
    """A second process finds the first one's contexts in Redis, decoded as the same type, and needs no source."""
    answers = []

    def is_stored() -> bool:
        with TestClient(own_source.create_app(members, redis=redis_url)) as first:
            answers.append(first.get("/boats", headers={"X-Member": "ana@example.com"}).json())
        with redis.Redis.from_url(redis_url) as client:
            return any(b":v:" in key for key in client.scan_iter())

    def is_found() -> bool:
        with TestClient(own_source.create_app(members, redis=redis_url)) as second:
            answer = second.get("/boats", headers={"X-Member": "ana@example.com"})
        return answer.status_code == 200 and answer.json() == answers[0]

    # The app has the shipped times for Redis, and a busy machine may take longer.
    eventually(is_stored)
    members.unlink()
    eventually(is_found)


@pytest.fixture
def rooms() -> Iterator[TestClient]:
    """The websocket app."""
    with TestClient(websocket.create_app(ContextPlugin(source=StaticSource(PEOPLE)), SECRET)) as client:
        yield client


def test_a_websocket_knows_who_is_on_it(rooms: TestClient) -> None:
    """What somebody says carries the name out of the context."""
    with rooms.websocket_connect("/rooms/NO", headers=bearer("ana")) as connection:
        assert connection.receive_json()["you"]["name"] == "Ana"
        connection.send_text("hello")
        assert connection.receive_json() == {"from": "Ana", "room": "NO", "text": "hello"}


@pytest.mark.parametrize(("path", "headers"), [("/rooms/SO", bearer("ana")), ("/rooms/NO", {})])
def test_a_websocket_that_is_refused(rooms: TestClient, path: str, headers: dict[str, str]) -> None:
    """Another's room, and any room without a token, is closed before it opens."""
    with pytest.raises(WebSocketDisconnect), rooms.websocket_connect(path, headers=headers):
        pass
