"""What the instances of a fleet are told of each other's invalidations, in order, and whether something is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from ...clock import monotonic
from ...collectable import CollectableLock
from ...stats import CHANNEL, Counters
from ..shared import Listener
from .lua.channel import LISTED_MS, Beat
from .news import News

CONFIRMED: Final = b"confirmed"
LANDED: Final = b"landed"
NOWHERE: Final = b"0-0"

# Of so many invalidations a process knows that they were its own; what it hears of more costs it another look.
_OWN_KNOWN: Final = 1000


class Follower:
    """Takes announcements in their order, and tells the listener when one is missing.

    Nothing here waits or asks: whoever reads the channel hands over what was read. What proves that nothing was missed
    is a beat, the state of the channel at a moment, once all announcements up to its number have been taken.

    Args:
        listener: who is told.
        counters: where events are counted.
        own: tokens of invalidations by this process, which has forgotten already whom they are about.
    """

    def __init__(self, listener: Listener, counters: Counters, own: set[bytes]) -> None:
        self._listener = listener
        self._counters = counters
        self._own = own
        self._incarnation: bytes | None = None
        self._number = 0
        self._promised: tuple[Beat, float] | None = None
        self._last_incarnation: bytes | None = None
        self.place = NOWHERE

    def __repr__(self) -> str:
        return f"<Follower: {f'after {self._number}' if self.is_following else 'lost'}>"

    @property
    def lasts(self) -> float:
        """Seconds that trust in memory lasts after a proof."""
        return self._listener.lasts

    @property
    def longest_untold(self) -> float:
        """Seconds after an invalidation within which this instance, if it missed it, stops serving older values."""
        return self._listener.longest_untold

    def now(self) -> float:
        """Return the monotonic second by which memory is trusted."""
        return self._listener.now()

    def doubt(self, digest: bytes) -> None:
        """Take note that a name's generation was touched."""
        self._listener.doubt(digest)

    def told(self) -> None:
        """Take note that from now on it is told whose generation is touched."""
        self._listener.told(self._listener.now())

    @property
    def is_following(self) -> bool:
        """Whether it knows which announcement comes next."""
        return self._incarnation is not None

    @property
    def is_behind(self) -> bool:
        """Whether announcements up to the last beat have not been taken yet."""
        return self._promised is not None

    def leave(self) -> None:
        """Stop trusting memory from now on, because this instance has left the list of instances."""
        self._incarnation, self._promised = None, None
        self._listener.left()

    def has_begun_anew(self, beat: Beat) -> bool:
        """Return whether the state of the channel was lost since the last beat, and with it what Redis knew."""
        former, self._last_incarnation = self._last_incarnation, beat.incarnation
        if former in (None, beat.incarnation):
            return False
        self._listener.begun_anew()
        return True

    def beat(self, beat: Beat, asked_at: float) -> None:
        """Take the state of the channel, asked for at a monotonic second."""
        if beat.incarnation != self._incarnation or beat.number < self._number:
            self.lose()
            self._incarnation, self._number, self.place = beat.incarnation, beat.number, beat.place
            # What was looked up before this moment may have missed what was announced before it.
            self._listener.missed()
        self._promised = beat, asked_at
        self._prove()

    def take(self, news: Sequence[News]) -> list[News]:
        """Take announcements, and return those that were obeyed."""
        taken = []
        for each in news:
            if each.incarnation != self._incarnation or each.number != self._number + 1:
                self.lose()
                break
            self._obey(each)
            self._number, self.place = each.number, each.place
            taken.append(each)
        self._prove()
        return taken

    def lose(self) -> None:
        """Take note that something is missing: nothing is trusted, and the next beat is a new beginning."""
        if self._incarnation is not None:
            self._counters.add("missed", CHANNEL)
            self._listener.missed()
        self._incarnation, self._promised = None, None

    def _obey(self, news: News) -> None:
        if news.token in self._own:
            return
        self._counters.add("heard", CHANNEL)
        if news.kind == "intent":
            self._listener.expect(news.digest, news.token)
        else:
            self._listener.forget(news.digest, news.generation, news.token)

    def _prove(self) -> None:
        if self._promised is None or self._number < self._promised[0].number:
            return
        (beat, asked_at), self._promised = self._promised, None
        if self._number == beat.number and beat.place not in (self.place, NOWHERE):
            # The same number was given twice, by two servers each of which was the master: whose news these are
            # nobody knows.
            self.lose()
        else:
            self._listener.prove(asked_at)


@dataclass(eq=False)
class Confirmation:
    """Who has confirmed one invalidation, and how many milliseconds after it was announced.

    Args:
        wake: tells whoever waits for it, from any thread.
        heard: who has, and when.
    """

    wake: Callable[[], None]
    heard: dict[str, float] = field(default_factory=dict)


class Channel:
    """What all event loops of a process know of the channel.

    Only one of them listens at a time; where its event loop ends, another goes on where it was. `longest_untold` is the
    longest time, in seconds, for which any registered instance serves a value after an invalidation that it missed.

    Args:
        landed: told of loads by other instances that somebody here waits for.
        clock: monotonic seconds.
    """

    def __init__(self, landed: Callable[[Sequence[bytes]], None], clock: Callable[[], float] = monotonic) -> None:
        self._landed = landed
        self._clock = clock
        self._lock = CollectableLock()
        self._ear: object | None = None
        self._ear_until = 0.0
        self._heard_until = -math.inf
        self._confirmations: dict[bytes, tuple[Confirmation, float]] = {}
        self._listed_until = -math.inf
        # One for each event loop whose LEAVE is under way: it removes what another loop has registered meanwhile.
        self._leaving: list[None] = []
        self._left_at = -math.inf
        self.longest_untold = 0.0
        self.own: set[bytes] = set()
        self.inbox_place = NOWHERE

    def take(self, ear: object, seconds: float) -> bool:
        """Let an ear listen for so many seconds; return whether it may."""
        now = self._clock()
        with self._lock:
            if self._ear not in (None, ear) and now < self._ear_until:
                return False
            self._ear, self._ear_until = ear, now + seconds
            return True

    def leave(self, ear: object) -> None:
        """Let another ear listen."""
        self._lock.soon(partial(self._left, ear))

    def _left(self, ear: object) -> None:
        if self._ear is ear:
            self._ear, self._heard_until = None, -math.inf

    def heard(self, seconds: float) -> None:
        """Take note that an ear hears, and will have heard again within so many seconds."""
        self._heard_until = self._clock() + seconds

    def is_heard(self) -> bool:
        """Return whether an ear hears what is said."""
        return self._clock() < self._heard_until

    def now(self) -> float:
        """Return the monotonic second by which this instance is listed."""
        return self._clock()

    def listed(self, beat: Beat, asked_at: float) -> bool:
        """Record a beat that was asked for at a monotonic second; return whether that was after the last leave.

        It has put this instance into the list, unless a LEAVE under way removes it.
        """
        with self._lock:
            if asked_at <= self._left_at:
                return False
            if not self._leaving:
                self._listed_until = max(self._listed_until, asked_at + LISTED_MS / 1000)
        self.longest_untold = max(self.longest_untold, beat.longest_ms / 1000)
        return True

    def leave_list(self) -> None:
        """Record that this instance begins to leave the list."""
        self._leaving.append(None)
        self._lock.soon(self._unlist)

    def left_list(self) -> None:
        """Record that a leave has ended: a beat that was asked for before may have come before it."""
        self._lock.soon(self._unlist)
        self._leaving.pop()

    def _unlist(self) -> None:
        self._left_at, self._listed_until = self._clock(), -math.inf

    def is_listed(self) -> bool:
        """Return whether this instance stays in the list for as long as it may serve what it gets now."""
        return self._clock() < self._listed_until

    def expect(self, token: bytes, confirmation: Confirmation) -> None:
        """Take note of an invalidation by this process, which instances are to confirm."""
        if len(self.own) >= _OWN_KNOWN:
            self.own.clear()
        self.own.add(token)
        self._confirmations[token] = confirmation, self._clock()

    def unexpect(self, token: bytes, *, failed: bool) -> None:
        """Wait no more; where it failed, whatever is heard of it later is obeyed as if it were another's."""
        self._confirmations.pop(token, None)
        if failed:
            self.own.discard(token)

    def mail(self, fields: Mapping[bytes, bytes]) -> None:
        """Take what another instance has put into this one's own stream; what is none of ours is left alone."""
        kind, value = fields.get(b"k"), fields.get(b"v", b"")
        if kind == LANDED:
            self._landed([value])
        if kind != CONFIRMED:
            return
        try:
            token, instance = msgspec.msgpack.decode(value, type=tuple[bytes, str])
        except msgspec.MsgspecError:
            return
        self._confirmed(token, instance)

    def _confirmed(self, token: bytes, instance: str) -> None:
        confirmation, since = self._confirmations.get(token, (None, 0.0))
        if confirmation is not None:
            confirmation.heard.setdefault(instance, (self._clock() - since) * 1000)
            confirmation.wake()
