"""A cluster of Redis: which server has a key, and what becomes of a call while that server is lost."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Final, Self

import anyio

from ....failure_log import log_failure
from ..keys import KeySpace
from ..options import RedisOptions
from .connection import Admit, Server
from .driver import Call, NodeFailed, Spread, TooFewReplicas, has_moved, is_busy, is_elsewhere, look_at
from .node import Node, Reach
from .quorum import heard
from .slots import Layout, layout_of, slot_of
from .target import Place

logger = logging.getLogger("ctxmiddleware.redis")

# So many nodes are asked who has which slots, however many there are.
ASKED: Final = 5


@dataclass
class _State:
    """What is known of the nodes, whichever connections they are spoken to over."""

    layout: Layout | None = None
    refreshes: int = 0
    unwell: anyio.Event = field(default_factory=anyio.Event)


class Cluster(Spread):
    """Servers that share the keys among them by slots.

    Each node has clients and a breaker of its own: the loss of one is felt by nobody whose keys are elsewhere. Who has
    which slots is asked for when a node sends a call elsewhere or does not answer, and now and then.

    Args:
        reach: how the nodes are spoken to.
        options: timeouts and sizes, of each node.
        keys: of the namespace; they say which buckets a node has.
        look: looks at the server that has some buckets, over a new connection.
    """

    def __init__(
        self,
        reach: Reach,
        options: RedisOptions,
        keys: KeySpace,
        look: Callable[[frozenset[int]], Admit],
    ) -> None:
        self._reach = reach
        self._options = options
        self._look = look
        self._bucket_slots = [slot_of(generation) for generation, _ in keys.everyone()]
        self._nodes: dict[Place, Node] = {}
        self._state = _State()
        self._refreshing = anyio.Lock()
        self._is_shared = False

    def __repr__(self) -> str:
        return f"<Cluster: {list(self._nodes.values())}>"

    def shared(self) -> Self:
        """Return the same cluster over connections that many share, one a node."""
        link = copy(self)
        link._is_shared = True
        return link

    @property
    def is_down(self) -> bool:
        """Whether none of its nodes is asked."""
        return bool(self._nodes) and all(node.breaker.is_open for node in self._nodes.values())

    async def run(self, calls: Sequence[Call]) -> list[object]:
        """Carry out scripts, those of one node in one trip and all nodes at once, and return their answers.

        Args:
            calls: each with keys of one slot.

        Raises:
            Exception: nobody says who has which slots.
        """
        await self._known()
        seen, answers = self._state.refreshes, await self._round(calls)
        sent_on = [place for place, answer in enumerate(answers) if has_moved(answer)]
        if sent_on:
            # Where nobody says who has them now, what the other nodes have answered stands.
            with suppress(Exception):
                await self.refresh(seen)
            again = await self._round([calls[place] for place in sent_on])
            for place, answer in zip(sent_on, again, strict=True):
                answers[place] = answer
        return [NodeFailed(str(answer)) if is_elsewhere(answer) else answer for answer in answers]

    async def owner(self, key: str) -> Server:
        """Return the client of the server that has a key now.

        Raises:
            Exception: nobody has it, or nobody says who.
        """
        node = (await self._known()).owner(slot_of(key))
        if node is None:
            raise NodeFailed("no node of the cluster has the slot")
        return self._node(node).pool

    async def look_over(self) -> None:
        """Look at all nodes, and at who has which slots.

        Raises:
            Exception: nobody says who has which slots.
        """
        await self.refresh(self._state.refreshes)
        async with anyio.create_task_group() as tasks:
            for node in [node for node in self._nodes.values() if not node.breaker.is_open]:
                tasks.start_soon(self._try, node)

    async def put_in_step(self) -> None:
        """Close all idle connections."""
        for node in list(self._nodes.values()):
            await node.put_in_step()

    async def aclose(self) -> None:
        """Close all connections."""
        while self._nodes:
            await self._nodes.popitem()[1].close()

    async def mind(self) -> None:
        """Look after what does not answer, until it does or another has taken its place."""
        while True:
            await self._state.unwell.wait()
            self._state.unwell = anyio.Event()
            with suppress(Exception):
                await self.refresh(self._state.refreshes)
            for node in [node for node in self._nodes.values() if node.breaker.is_open]:
                await self._try(node)
            if not self._is_well():
                self._state.unwell.set()
            await anyio.sleep(self._options.probe_every)

    async def refresh(self, seen: int) -> None:
        """Ask who has which slots, unless somebody has since that was `seen`.

        Raises:
            Exception: nobody says.
        """
        async with self._refreshing:
            if self._state.refreshes != seen:
                return
            known = list(dict.fromkeys((*self._nodes, *self._reach.places)))
            asked = random.sample(known, min(ASKED, len(known)))
            found = await heard(asked, self._said, enough=len(asked) // 2 + 1, seconds=self._options.timeout)
            # A node that was cut off knows nothing of what the others have agreed upon since.
            layout = max(found, key=lambda each: each.epoch)
            self._state.refreshes += 1
            await self._take(layout)

    async def _said(self, place: Place) -> Layout:
        slots, info = await self._reach.ask(place, [("CLUSTER", "SLOTS"), ("CLUSTER", "INFO")])
        return layout_of(slots, info, place, self._reach.remap)

    async def _take(self, layout: Layout) -> None:
        self._state.layout = layout
        buckets: dict[Place, set[int]] = {place: set() for place in layout.places}
        for bucket, slot in enumerate(self._bucket_slots):
            owner = layout.owner(slot)
            if owner is not None:
                buckets[owner].add(bucket)
        for place, own in buckets.items():
            self._node(place).has(frozenset(own))
        for place in [place for place in self._nodes if place not in buckets]:
            await self._nodes.pop(place).close()

    async def _known(self) -> Layout:
        if self._state.layout is None:
            await self.refresh(0)
        assert self._state.layout is not None  # noqa: S101 - a refresh that brings none raises
        return self._state.layout

    def _node(self, place: Place) -> Node:
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = Node(place, self._reach.make, self._look, self._options)
        return node

    async def _round(self, calls: Sequence[Call]) -> list[object]:
        layout = await self._known()
        answers: list[object] = [NodeFailed("no node of the cluster has the slot")] * len(calls)
        shares: dict[Place, list[int]] = {}
        for number, call in enumerate(calls):
            place = layout.owner(slot_of(call.keys[0]))
            if place is None:
                self._state.unwell.set()
            else:
                shares.setdefault(place, []).append(number)

        async def carry(node: Node, share: list[int]) -> None:
            found = await self._at(node, [calls[number] for number in share])
            for number, answer in zip(share, found, strict=True):
                answers[number] = answer

        if len(shares) == 1:
            ((place, share),) = shares.items()
            await carry(self._node(place), share)
            return answers
        async with anyio.create_task_group() as tasks:
            for place, share in shares.items():
                tasks.start_soon(carry, self._node(place), share)
        return answers

    async def _at(self, node: Node, calls: Sequence[Call]) -> list[object]:
        if node.breaker.is_open:
            return [NodeFailed(f"{node!r} is not asked")] * len(calls)
        try:
            # A node that hangs holds up a trip of all no longer than that.
            with anyio.fail_after(self._options.timeout):
                answers = await node.run(self._client(node), calls)
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, the other nodes have answered
            if is_busy(error):
                return [error] * len(calls)
            self._fault(node, error)
            return [NodeFailed(f"{node!r}: {type(error).__name__}")] * len(calls)
        # What too few replicas have is in force, and says nothing against the node.
        faults = [
            each
            for each in answers
            if isinstance(each, Exception) and not is_elsewhere(each) and not isinstance(each, TooFewReplicas)
        ]
        if faults:
            self._fault(node, faults[0])
        else:
            self._success(node)
        return [NodeFailed(str(each)) if each in faults else each for each in answers]

    def _client(self, node: Node) -> Server:
        return node.own if self._is_shared else node.pool

    async def _try(self, node: Node) -> None:
        try:
            with anyio.fail_after(2 * self._options.timeout):
                await look_at(self._client(node), node.admit)
        except Exception as error:  # noqa: BLE001 - it is looked at again
            if not is_busy(error):
                self._fault(node, error)
        else:
            self._success(node)

    def _fault(self, node: Node, error: Exception) -> None:
        self._state.unwell.set()
        if node.breaker.fault():
            log_failure(
                logger,
                logging.ERROR,
                "a node of the Redis cluster does not answer, and contexts of its share of the users come from memory "
                "and the source alone",
                error=error,
            )

    def _success(self, node: Node) -> None:
        if node.breaker.success():
            logger.error("the node of the Redis cluster answers again")

    def _is_well(self) -> bool:
        layout = self._state.layout
        return layout is not None and all(
            place is not None and not self._node(place).breaker.is_open
            for place in map(layout.owner, self._bucket_slots)
        )
