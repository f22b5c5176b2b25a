"""Whether the front counts what reaches it: requests by kind, and connections with their age."""

from __future__ import annotations

import http.client
import time
from contextlib import ExitStack, closing

from examples.servers import SupabaseFront, SupabaseProject
from tests.waiting import eventually

from .http import ask, newer_dialect

CALL = "/rest/v1/rpc/get_user_context_by_email"


def opened(front: SupabaseFront) -> http.client.HTTPConnection:
    """Return a connection that is kept."""
    return http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)


def read(front: SupabaseFront, connection: http.client.HTTPConnection) -> int:
    """Read the regions over a kept connection and return the status."""
    connection.request("GET", "/rest/v1/regions", headers={"apikey": front.secret_key, "Accept-Profile": "hr"})
    reply = connection.getresponse()
    reply.read()
    return reply.status


@newer_dialect
def test_counts_requests_by_kind(front: SupabaseFront) -> None:
    """Calls are counted by function and reads by table; the refused are counted as well."""
    headers = {"apikey": front.secret_key, "Accept-Profile": "hr", "Content-Profile": "hr"}
    for table in ("employees", "slots", "slots"):
        ask(front.port, f"/rest/v1/{table}?select=id", headers=headers)
    ask(front.port, CALL, method="POST", headers=headers, body={"p_email": "a@b.c"})
    ask(front.port, "/rest/v1/slots")
    counts = front.counts()
    assert counts.kinds == {"table:employees": 1, "table:slots": 3, "rpc:get_user_context_by_email": 1}
    assert (counts.requests, counts.refused) == (5, 1)
    assert (counts.table("slots"), counts.table("regions")) == (3, 0)
    assert counts.rpc("get_user_context_by_email") == 1


@newer_dialect
def test_counts_connections_and_not_requests(front: SupabaseFront) -> None:
    """Ten requests over two connections are two connections, and none when they are closed."""
    with ExitStack() as exits:
        connections = [exits.enter_context(closing(opened(front))) for _ in range(2)]
        for connection in connections * 5:
            assert read(front, connection) == 200
        counts = front.counts()
        assert (counts.requests, counts.connections, counts.most_connections) == (10, 2, 2)
    eventually(lambda: front.counts().connections == 0)
    assert front.counts().connections_opened == 2
    assert front.counts().most_connections == 2


@newer_dialect
def test_its_own_control_requests_are_not_counted(front: SupabaseFront) -> None:
    """However often it is asked, nobody has been there."""
    for _ in range(3):
        front.counts()
    counts = front.counts()
    assert (counts.requests, counts.connections_opened, counts.most_connections) == (0, 0, 0)


@newer_dialect
def test_knows_the_age_of_the_connections_that_are_used(front: SupabaseFront) -> None:
    """The age of a connection is measured when a request comes over it; an idle one adds nothing."""
    with closing(opened(front)) as old, closing(opened(front)) as young:
        before_old = time.monotonic()
        assert read(front, old) == 200
        answered = time.monotonic()
        eventually(lambda: time.monotonic() - answered > 0.3)
        front.reset()
        before_young = time.monotonic()
        assert read(front, young) == 200
        assert front.counts().oldest_used_connection <= time.monotonic() - before_young
        assert read(front, old) == 200
        assert 0.3 <= front.counts().oldest_used_connection <= time.monotonic() - before_old


@newer_dialect
def test_knows_how_many_requests_are_under_way(front: SupabaseFront) -> None:
    """Requests at the same time are counted as such, and those one after another are not."""
    for _ in range(2):
        with closing(opened(front)) as connection:
            assert read(front, connection) == 200
    assert front.counts().most_under_way == 1
    front.disturb("hang", times=4)
    with ExitStack() as exits:
        for _ in range(4):
            connection = exits.enter_context(closing(opened(front)))
            connection.request("GET", "/rest/v1/regions")
        eventually(lambda: front.counts().most_under_way == 4)


def test_an_idle_connection_is_closed_after_its_time(supabase: SupabaseProject) -> None:
    """A front that keeps idle connections for a second closes them then, as gateways do."""
    with supabase.front(keep_alive=1) as front, closing(opened(front)) as connection:
        assert read(front, connection) == 200
        assert front.counts().connections == 1
        eventually(lambda: front.counts().connections == 0)
