"""What a cluster makes of answers that its nodes give, or do not give; whole clusters are the subject of topologies."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import MaxConnectionsError, ResponseError

from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.lua.script import Script, script
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.servers.cluster import Cluster
from ctxmiddleware.cache.redis.servers.connection import Admit, Send
from ctxmiddleware.cache.redis.servers.driver import (
    Call,
    NodeFailed,
    TooFewReplicas,
    _if_replicated,
    look_at,
    put_in_step,
)
from ctxmiddleware.cache.redis.servers.node import Reach
from ctxmiddleware.cache.redis.servers.slots import SLOTS, Layout, Range, layout_of, slot_of
from ctxmiddleware.cache.redis.servers.target import Place

pytestmark = pytest.mark.anyio
ONE, TWO = Place("one", 1), Place("two", 2)
HALF = SLOTS // 2
WRITE: Script[Any] = script("return 1", tuple)
OPTIONS = RedisOptions(timeout=30.0, fault_threshold=2)


class Client:
    """A client of one node, which answers or fails as the test says."""

    def __init__(self, place: Place, admit: Admit, *, alone: bool) -> None:
        self.place, self.admit, self.alone = place, admit, alone
        self.answer: object = "done"
        self.commands = self.closed = 0
        self.connection_pool = SimpleNamespace(connection_class=object, disconnect=self._disconnect)

    async def _disconnect(self, *, inuse_connections: bool) -> None:
        assert not inuse_connections
        self.closed += 1

    async def execute_command(self, *_: object) -> object:
        """Answer."""
        self.commands += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Nodes:
    """Two nodes, their clients, and what they say of slots."""

    def __init__(self) -> None:
        self.slots: list[Any] = [[0, HALF - 1, [b"one", 1]], [HALF, SLOTS - 1, [b"two", 2]]]
        self.asked = 0
        self.clients: dict[tuple[Place, bool], Any] = {}
        self.looks: list[frozenset[int]] = []
        reach = Reach((ONE,), self._ask, self._make, lambda place: place)  # type: ignore[arg-type]  # a client of the test's
        self.cluster = Cluster(reach, OPTIONS, KeySpace("test", b""), self._look)

    async def _ask(self, place: Place, commands: Sequence[Any]) -> list[object]:
        self.asked += 1
        return [self.slots, b"cluster_current_epoch:7\r\n"]

    def _make(self, place: Place, admit: Admit, alone: bool) -> Client:  # noqa: FBT001 - as the type says
        client = self.clients[place, alone] = Client(place, admit, alone=alone)
        return client

    def _look(self, buckets: frozenset[int]) -> Admit:
        async def admit(send: Send) -> None:
            self.looks.append(buckets)
            (answer,) = await send([("GET", "key")])
            if isinstance(answer, Exception):
                raise answer

        return admit


@pytest.fixture
def nodes() -> Nodes:
    """Two nodes that answer."""
    return Nodes()


def of(place: Place) -> Call:
    """Return a call whose key a node has."""
    keys = (f"key{number}" for number in range(1000))
    return Call(WRITE, [next(key for key in keys if (slot_of(key) < HALF) is (place == ONE))], [])


async def test_a_slot_that_no_node_has_fails_its_calls_alone(nodes: Nodes) -> None:
    """The other node's calls are answered, and who has it is asked for again."""
    del nodes.slots[1]
    assert await nodes.cluster.run([of(ONE)]) == ["done"]
    found, lost = await nodes.cluster.run([of(ONE), of(TWO)])
    assert found == "done"
    assert isinstance(lost, NodeFailed)
    assert not nodes.cluster._is_well()
    assert nodes.cluster._state.unwell.is_set()
    with pytest.raises(NodeFailed, match="no node of the cluster has the slot"):
        await nodes.cluster.owner(of(TWO).keys[0])
    assert await nodes.cluster.owner(of(ONE).keys[0]) is nodes.clients[ONE, False]


async def test_an_error_of_one_call_is_a_fault_of_its_node_and_of_no_other_call(nodes: Nodes) -> None:
    """It is answered as a failure of the node, so that the user's context comes from elsewhere."""
    await nodes.cluster.run([of(ONE), of(TWO)])
    nodes.clients[TWO, False].answer = ResponseError("out of memory")
    for _ in range(OPTIONS.fault_threshold):
        found, failed = await nodes.cluster.run([of(ONE), of(TWO)])
        assert (found, type(failed)) == ("done", NodeFailed)
    before = nodes.clients[TWO, False].commands
    assert isinstance((await nodes.cluster.run([of(TWO)]))[0], NodeFailed)
    assert nodes.clients[TWO, False].commands == before
    assert not nodes.cluster.is_down
    assert await nodes.cluster.run([of(ONE)]) == ["done"]


async def test_a_pool_that_is_busy_says_nothing_against_a_node(nodes: Nodes) -> None:
    """The error is passed on as it is, however often."""
    await nodes.cluster.run([of(ONE)])
    busy = MaxConnectionsError("too many")
    node = nodes.cluster._node(ONE)

    async def no_room(*_: object, **__: object) -> Any:
        raise busy

    node.run = no_room  # type: ignore[method-assign]  # a pool without a free connection
    for _ in range(2 * OPTIONS.fault_threshold):
        assert await nodes.cluster.run([of(ONE)]) == [busy]
    assert not node.breaker.is_open


@pytest.mark.parametrize("shared", [False, True])
async def test_a_look_over_looks_at_each_node_over_the_connections_it_is_asked_for(
    nodes: Nodes, *, shared: bool
) -> None:
    """At what the nodes have now, and a node that fails again and again is not asked any more."""
    link = nodes.cluster.shared() if shared else nodes.cluster
    await look_at(link, _never)
    assert nodes.asked == 1
    assert sorted(map(len, nodes.looks)) == sorted(len(node._buckets) for node in nodes.cluster._nodes.values())
    assert {key for key, client in nodes.clients.items() if client.commands} == {(ONE, shared), (TWO, shared)}
    nodes.clients[TWO, shared].answer = ResponseError("down")
    for _ in range(OPTIONS.fault_threshold):
        await look_at(link, _never)
    assert nodes.cluster._node(TWO).breaker.is_open
    assert not nodes.cluster._node(ONE).breaker.is_open
    commands = nodes.clients[TWO, shared].commands
    await look_at(link, _never)
    assert nodes.clients[TWO, shared].commands == commands
    nodes.clients[ONE, shared].answer = ResponseError("down")
    for _ in range(OPTIONS.fault_threshold):
        await look_at(link, _never)
    assert link.is_down


async def test_a_look_that_finds_no_free_connection_says_nothing_against_a_node(nodes: Nodes) -> None:
    """The pool is the application's own."""
    await nodes.cluster.look_over()
    nodes.clients[ONE, False].answer = MaxConnectionsError("too many")
    for _ in range(2 * OPTIONS.fault_threshold):
        await nodes.cluster.look_over()
    assert not nodes.cluster._node(ONE).breaker.is_open


async def test_out_of_step_all_idle_connections_of_all_nodes_are_closed(nodes: Nodes) -> None:
    """Which of them is out of step is not known."""
    link = nodes.cluster.shared()
    await link.look_over()
    await put_in_step(link)
    assert {key: client.closed for key, client in nodes.clients.items()} == {
        (place, alone): 1 for place in (ONE, TWO) for alone in (False, True)
    }
    assert await link.owner(of(TWO).keys[0]) is nodes.clients[TWO, False]


async def test_many_that_were_sent_elsewhere_ask_once_who_has_the_slots(nodes: Nodes) -> None:
    """A caller that has waited for the question of another has its answer."""
    await nodes.cluster.refresh(0)
    await nodes.cluster.refresh(0)
    assert nodes.asked == 1
    await nodes.cluster.refresh(1)
    assert nodes.asked > 1


async def test_nothing_of_its_keys_is_shown(nodes: Nodes) -> None:
    """Only nodes, with how many buckets they have."""
    await nodes.cluster.refresh(0)
    buckets = [len(node._buckets) for node in nodes.cluster._nodes.values()]
    for place, count in zip(nodes.cluster._nodes, buckets, strict=True):
        assert f"<Node {place.host}:{place.port}, {count} buckets" in repr(nodes.cluster)


async def _never(_: Send) -> None:
    pytest.fail("each node has its own look")


def test_a_server_without_slots_is_in_no_cluster() -> None:
    """As one that was just started, or reset."""
    with pytest.raises(ConnectionError, match="in no cluster"):
        layout_of([], b"cluster_current_epoch:1", ONE, lambda place: place)
    with pytest.raises(ConnectionError, match="in no cluster"):
        layout_of([[0, 1, [b"one", 1]]], b"cluster_enabled:0", ONE, lambda place: place)
    with pytest.raises(ResponseError):
        layout_of(ResponseError("cluster support disabled"), b"", ONE, lambda place: place)


@pytest.mark.parametrize("name", [None, b"", b"?"])
def test_a_node_that_does_not_know_its_own_address_is_where_it_was_asked(name: bytes | None) -> None:
    """Its port is the one that it names, and what the address would be turned into is not asked for."""
    layout = layout_of([[0, 5, [name, 7]]], b"cluster_current_epoch:3", ONE, lambda place: pytest.fail("remapped"))
    assert (layout.epoch, layout.places) == (3, frozenset({Place("one", 7)}))


def test_the_owner_of_a_slot_is_found_at_the_ends_of_ranges() -> None:
    """And in the gaps between them there is none."""
    layout = Layout(1, [Range(10, 19, TWO), Range(2, 5, ONE)])
    assert [layout.owner(slot) for slot in (1, 2, 5, 6, 9, 10, 19, 20)] == [None, ONE, ONE, None, None, TWO, TWO, None]


def test_a_write_that_wants_no_replicas_is_done_without_them() -> None:
    """In one trip with others that want some; and what failed stays what it is."""
    free, one = Call(WRITE, ["k"], []), Call(WRITE, ["k"], [], replicas=1)
    error = ResponseError("no")
    assert _if_replicated("done", free, error) == "done"
    assert _if_replicated(error, one, 1) is error
    assert _if_replicated("done", one, 1) == "done"
    for found, told in ((0, "0 of 1 replicas"), (error, "is WAIT allowed")):
        with pytest.raises(TooFewReplicas, match=told):
            raise _if_replicated("done", one, found)  # type: ignore[misc]  # an exception in the place of an answer
