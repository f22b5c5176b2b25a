"""Whether the front fails in each way it is told to, and for those requests only."""

from __future__ import annotations

import http.client
import socket
import time

import pytest

from examples.servers import SupabaseFront
from tests.waiting import eventually

from .http import Answer, ask, newer_dialect


def read(front: SupabaseFront, path: str = "/regions") -> Answer:
    """Read a table as service_role."""
    return ask(front.port, f"/rest/v1{path}", headers={"apikey": front.secret_key, "Accept-Profile": "hr"})


@newer_dialect
def test_answers_so_many_requests_with_a_fault(front: SupabaseFront) -> None:
    """A fault for two requests is gone with the third."""
    front.fault(status=503, headers={"Retry-After": "7"}, body={"code": "PGRST001"}, times=2)
    for _ in range(2):
        answer = read(front)
        assert (answer.status, answer.json(), answer.header("retry-after")) == (503, {"code": "PGRST001"}, ["7"])
    assert read(front).status == 200


@newer_dialect
def test_answers_some_requests_only(front: SupabaseFront) -> None:
    """A fault for one table leaves the others alone, however often they are asked."""
    front.fault(status=500, body="<html>oh</html>", headers={"content-type": "text/html"}, contains="/slots")
    assert read(front).status == 200
    answer = read(front, "/slots")
    assert (answer.status, answer.body, answer.header("content-type")) == (500, b"<html>oh</html>", ["text/html"])
    assert read(front, "/slots").status == 200


@newer_dialect
def test_faults_come_in_the_order_they_were_given(front: SupabaseFront) -> None:
    """First one fault, then the next."""
    front.fault(status=429)
    front.fault(status=502)
    assert [read(front).status for _ in range(3)] == [429, 502, 200]


@newer_dialect
def test_a_lasting_fault_ends_with_a_reset(front: SupabaseFront) -> None:
    """A fault without number of times lasts until the reset, which sets the counts to nought, too."""
    front.fault(status=504, times=None)
    assert [read(front).status for _ in range(4)] == [504] * 4
    front.reset()
    assert read(front).status == 200
    assert front.counts().requests == 1


@newer_dialect
def test_a_hanging_request_gets_no_answer_and_others_do(front: SupabaseFront) -> None:
    """A hang is silence on one connection; the front serves the others, and ends with its clients."""
    front.disturb("hang")
    with socket.create_connection(("127.0.0.1", front.port), timeout=0.3) as connection:
        connection.sendall(b"GET /rest/v1/regions HTTP/1.1\r\nhost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert read(front).status == 200
        assert front.counts().connections == 1
    eventually(lambda: front.counts().connections == 0)


@newer_dialect
def test_a_dropped_connection_has_no_answer(front: SupabaseFront) -> None:
    """A drop ends the connection before a byte of the reply."""
    front.disturb("drop")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        read(front)
    assert read(front).status == 200


@newer_dialect
def test_a_cut_reply_ends_in_the_middle(front: SupabaseFront) -> None:
    """A cut gives the whole head, so many bytes of the right body, and then the end."""
    front.disturb("cut", after=1)
    with pytest.raises(http.client.IncompleteRead) as cut:
        read(front)
    assert cut.value.partial == b"["
    assert cut.value.expected == 1
    assert read(front).status == 200


@newer_dialect
def test_a_cut_after_the_head_leaves_no_body(front: SupabaseFront) -> None:
    """A cut after nought bytes gives the head alone."""
    front.disturb("cut")
    with pytest.raises(http.client.IncompleteRead) as cut:
        read(front)
    assert cut.value.partial == b""


@newer_dialect
def test_a_delay_is_paid_by_every_request_until_the_reset(front: SupabaseFront) -> None:
    """A delay is a time every reply takes at least."""
    front.delay(150)
    started = time.monotonic()
    assert read(front).status == 200
    assert time.monotonic() - started >= 0.15
    # Longer than this client waits.
    front.delay(600_000)
    front.reset()
    assert read(front).status == 200


@newer_dialect
def test_an_unknown_order_is_an_error(front: SupabaseFront) -> None:
    """The control interface does not accept what it does not know."""
    assert ask(front.port, "/__control__/nonsense", method="POST", body={}).status == 404


@newer_dialect
def test_the_front_is_paused_killed_and_restarted(front: SupabaseFront) -> None:
    """It is disturbed like every server, keeps its address, and forgets its faults."""
    front.fault(status=500, times=None)
    front.pause()
    with socket.create_connection(("127.0.0.1", front.port), timeout=0.2) as connection:
        connection.sendall(b"GET /rest/v1/regions HTTP/1.1\r\nhost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
    front.resume()
    front.kill()
    with pytest.raises(ConnectionRefusedError):
        read(front)
    front.restart()
    assert read(front).status == 200
