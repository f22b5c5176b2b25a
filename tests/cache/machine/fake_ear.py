"""One instance's connection to the channel, moved on step by step: everything on it can be late, or lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ctxmiddleware.cache.redis.channel import Channel, Follower
from ctxmiddleware.cache.redis.ear import Ear, EarOptions
from ctxmiddleware.cache.redis.keys import ChannelKeys
from ctxmiddleware.cache.redis.lua.channel import Beat
from ctxmiddleware.cache.redis.servers.driver import Connection

from .fake_channel import Announced, FakeChannel, Item, News, Touched

KEYS = ChannelKeys("state", "stream", "listeners", "inbox:")
GENERATIONS = "generation:"


@dataclass
class _Trip:
    asked_at: float
    beats: bool
    waits: bool
    place: int
    inbox_place: int
    confirmations: tuple[list[str], list[bytes | int]] | None
    state: Literal["sent", "reading", "answered"] = "sent"


class FakeEar:
    """One connection and what travels on it, in order; what is made of it is the package's own doing.

    Args:
        server: the other end.
        channel: what the process knows of the channel.
        follower: takes what is heard.
        me: the instance's name.
        may_connect: whether the server can be reached.
        heard: told of an announcement that has arrived, and whether the follower took it.
        doubted: told of a name whose generation was touched, and the model's version.
        lost: told that the channel has begun anew.
    """

    def __init__(
        self,
        server: FakeChannel,
        channel: Channel,
        follower: Follower,
        me: str,
        may_connect: Callable[[], bool],
        heard: Callable[[Announced, bool], None] = lambda announced, taken: None,
        doubted: Callable[[bytes, int | None], None] = lambda digest, version: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._lost = lost
        self._channel = channel
        self.follower = follower
        self._me = me
        self._may_connect = may_connect
        self._heard = heard
        self._doubted = doubted
        self._ear = Ear(
            _never, channel, follower, keys=KEYS, generations=GENERATIONS, me=me, options=EarOptions(),
            token=server.token,
        )  # fmt: skip
        self.arriving: deque[Touched | Beat | News] = deque()
        self._trip: _Trip | None = None
        self._is_new = True

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self in self._server.ears

    def connect(self) -> None:
        """Connect, where that is possible."""
        if not self.is_connected and self._may_connect():
            self._server.ears.append(self)
            self.follower.told()
            self._is_new = True

    def break_off(self) -> None:
        """Lose the connection and all that is on it."""
        if self.is_connected:
            self._server.ears.remove(self)
        self.arriving.clear()
        self._trip = None

    def leave(self) -> None:
        """Go for good."""
        self.break_off()
        self._server.listeners.pop(self._ear.registering[0], None)

    def send(self, *, beats: bool) -> None:
        """Confirm what was heard, ask for the state where that is due, and ask for news."""
        if not self.is_connected or self._trip is not None:
            return
        waits = self.follower.is_following
        confirmed, self._ear._unconfirmed = self._ear._unconfirmed, []
        self._trip = _Trip(
            self.follower.now(),
            beats or self._is_new or not waits,
            waits,
            _number(self.follower.place),
            _number(self._channel.inbox_place),
            self._ear._confirmations(confirmed) if confirmed else None,
        )
        self._is_new = False

    def carry_out(self) -> None:
        """Let the server do what was asked."""
        trip = self._trip
        if trip is None or trip.state != "sent":
            return
        if trip.confirmations is not None:
            inboxes, (_, *words) = trip.confirmations
            for place, inbox in enumerate(inboxes):
                kind, value = words[2 * place], words[2 * place + 1]
                self._server.post(inbox, [b"k", _bytes(kind), b"v", _bytes(value)])
        if trip.beats:
            self.arriving.append(self._server.beat(self._ear.registering[0]))
        trip.state = "reading" if trip.waits else "answered"
        self.read()

    def read(self, *, gives_up: bool = False) -> None:
        """Answer with the news there are, where somebody waits for them; with none where the wait is over."""
        trip = self._trip
        if trip is None or trip.state != "reading":
            return
        news = [each for each in self._server.stream if each.place > trip.place]
        letters = self._server.inboxes.get(KEYS.inbox + self._me, [])
        mail = [(place, item) for place, item in letters if place > trip.inbox_place]
        if news or mail or gives_up:
            trip.state = "answered"
            self.arriving.append((news, mail))

    def deliver(self) -> bool:
        """Let the next of what is on the connection arrive; return whether there was something."""
        if not self.arriving:
            return False
        arrived = self.arriving.popleft()
        if isinstance(arrived, Touched):
            keys = None if arrived.digest is None else [f"{GENERATIONS}00}}:".encode() + arrived.digest]
            self._ear._touched(keys)
            if arrived.digest is not None:
                self._doubted(arrived.digest, arrived.version)
        elif isinstance(arrived, Beat):
            self._answered_by(arrived)
        else:
            self._trip = None
            self._take(*arrived)
        return True

    def _answered_by(self, beat: Beat) -> None:
        trip = self._trip
        assert trip is not None
        self._channel.listed(beat, trip.asked_at)
        if self.follower.has_begun_anew(beat):
            self._lost()
        self.follower.beat(beat, trip.asked_at)
        if not trip.waits:
            self._trip = None

    def _take(self, news: list[Announced], mail: list[tuple[int, Item]]) -> None:
        self._ear._take(
            {
                KEYS.stream.encode(): [(b"%d-0" % each.place, each.item()) for each in news],
                (KEYS.inbox + self._me).encode(): [(b"%d-0" % place, item) for place, item in mail],
            }
        )
        for each in news:
            self._heard(each, self.follower.is_following and each.place <= _number(self.follower.place))

    def hear(self) -> None:
        """Hear whatever there is, and confirm it."""
        self.connect()
        while self.deliver():
            pass
        for _ in range(3):
            self.read(gives_up=True)
            self.send(beats=True)
            self.carry_out()
            self.read(gives_up=True)
            while self.deliver():
                pass


def _number(place: bytes) -> int:
    return int(place.partition(b"-")[0])


def _bytes(word: bytes | int) -> bytes:
    return word if isinstance(word, bytes) else b"%d" % word


async def _never() -> Connection:
    raise AssertionError("it has connected already")
