"""The server's part of a channel, in memory: what is announced, who listens, and what is on its way to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from ctxmiddleware.cache.redis.lua.channel import LISTED_MS, Beat, Roll
from ctxmiddleware.cache.redis.register import read_entry

Kind = Literal["intent", "done"]
Item = list[bytes]


@dataclass(frozen=True)
class Announced:
    """One announcement; `version` is the model's, and travels nowhere."""

    place: int
    incarnation: bytes
    number: int
    kind: Kind
    digest: bytes
    generation: bytes
    token: bytes
    sender: str
    version: int

    def item(self) -> Item:
        """Return it as the stream holds it."""
        fields = {
            b"i": self.incarnation, b"n": b"%d" % self.number, b"k": self.kind.encode(), b"d": self.digest,
            b"g": self.generation, b"t": self.token, b"f": self.sender.encode(),
        }  # fmt: skip
        return [word for pair in fields.items() for word in pair]


@dataclass(frozen=True)
class Touched:
    """That a name's generation was touched, or all were lost where it is None; and the model's version of it."""

    digest: bytes | None
    version: int | None


News: TypeAlias = tuple[list[Announced], list[tuple[int, Item]]]
"""What was announced, and what is in the listener's own stream, with its places."""


class Connected(Protocol):
    """One connection to the channel, as the server knows it."""

    arriving: deque[Touched | Beat | News]

    def read(self) -> None:
        """Answer with the news there are, where somebody waits for them."""
        ...

    def break_off(self) -> None:
        """Lose the connection and all that is on it."""
        ...


@dataclass
class FakeChannel:
    """The server's part, as the scripts keep it: its state, the stream, who listens, and their own streams."""

    clock: Callable[[], float]
    token: Callable[[], bytes]
    incarnation: bytes | None = None
    number: int = 0
    place: int = 0
    stream: list[Announced] = field(default_factory=list)
    listeners: dict[bytes, float] = field(default_factory=dict)
    begun: float | None = None
    longest: float = 0.0
    inboxes: dict[str, list[tuple[int, Item]]] = field(default_factory=dict)
    ears: list[Connected] = field(default_factory=list)

    def announce(self, kind: Kind, digest: bytes, generation: bytes, token: bytes, sender: str, version: int) -> Roll:
        """Put an announcement into the stream, and return the list of instances."""
        incarnation = self._living()
        self.number += 1
        self.place += 1
        self.stream.append(
            Announced(self.place, incarnation, self.number, kind, digest, generation, token, sender, version)
        )
        self._wake()
        now = self.clock()
        listening = [(entry, int((now - at) * 1000)) for entry, at in self.listeners.items()]
        age = 0.0 if self.begun is None else now - self.begun
        return Roll(listening, int(age * 1000), int(self.longest * 1000))

    def beat(self, entry: bytes) -> Beat:
        """Take note of a listener, and return the state."""
        incarnation, now = self._living(), self.clock()
        self.longest = max(self.longest, read_entry(entry)[1])
        self.begun = now if self.begun is None else self.begun
        listed = LISTED_MS / 1000 + self.longest
        self.listeners = {each: at for each, at in self.listeners.items() if now - at < listed}
        self.listeners[entry] = now
        place = b"%d-0" % (self.stream[-1].place if self.stream else 0)
        return Beat(incarnation, self.number, place, int(self.longest * 1000))

    def post(self, inbox: str, item: Item) -> None:
        """Put something into a listener's own stream."""
        self.place += 1
        self.inboxes.setdefault(inbox, []).append((self.place, item))
        self._wake()

    def touched(self, digest: bytes | None, version: int | None = None) -> None:
        """Tell who is connected that a name's generation was touched, or that all were lost where it is None."""
        for ear in self.ears:
            ear.arriving.append(Touched(digest, version))

    def lose_state(self) -> None:
        """Lose the state, as where it is deleted: another incarnation begins with an empty stream."""
        self.incarnation, self.number = None, 0

    def flush(self) -> None:
        """Lose everything."""
        self.lose_state()
        self.lose_list()
        self.stream, self.inboxes = [], {}
        self.touched(None)

    def lose_list(self) -> None:
        """Lose the list of instances, as where it is evicted."""
        self.listeners, self.begun, self.longest = {}, None, 0.0

    def snapshot(self) -> FakeChannel:
        """Return what a copy holds."""
        inboxes = {name: list(items) for name, items in self.inboxes.items()}
        return replace(self, stream=list(self.stream), listeners=dict(self.listeners), inboxes=inboxes, ears=[])

    def fail_over_to(self, older: FakeChannel) -> None:
        """Take an older state, whose clock may be behind, and lose every connection; whoever connects begins anew."""
        self.cut_off()
        copy = older.snapshot()
        self.place, self.stream = copy.place, copy.stream
        self.inboxes = copy.inboxes
        self.lose_state()
        self.lose_list()

    def cut_off(self) -> None:
        """Lose every connection."""
        for ear in list(self.ears):
            ear.break_off()

    def _living(self) -> bytes:
        if self.incarnation is None:
            self.incarnation, self.number, self.stream = self.token(), 0, []
        return self.incarnation

    def _wake(self) -> None:
        for ear in self.ears:
            ear.read()
