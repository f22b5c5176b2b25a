"""How the channel is listened to: a connection that waits for news, and beats that prove nothing was missed."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import msgspec
from anyio.lowlevel import checkpoint_if_cancelled

from ...failure_log import log_failure
from .channel import CONFIRMED, NOWHERE, Channel, Follower
from .keys import ChannelKeys
from .lua.channel import BEAT, POST
from .news import News, read_fields, read_news
from .register import registering
from .servers.driver import Connection, Refused, leads_elsewhere
from .wire import Streams, Wire

logger = logging.getLogger("ctxmiddleware.redis")

INBOX_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class EarOptions:
    """How the channel is listened to.

    Args:
        beat: seconds between proofs that nothing was missed.
        timeout: seconds for connecting and for one answer.
        check_every: seconds between looks at whether the server is still the one to listen to.
        pause: seconds before another try where the channel was lost; twice that after each that failed.
        longest_pause: seconds between tries at most.
    """

    beat: float = 1.0
    timeout: float = 0.25
    check_every: float = 5.0
    pause: float = 0.05
    longest_pause: float = 1.0


class Ear:
    """One event loop's way to hear the channel; of all loops of a process only one listens at a time.

    Args:
        connect: makes the connection, not yet connected, to the server that holds the channel.
        channel: what all event loops of the process share.
        follower: takes what is heard.
        keys: of the channel.
        generations: what the keys of all names' generations begin with.
        me: the instance's name.
        options: times.
        token: makes a value never used before.
        heard: called with None when the channel replies, and with an error when it is lost.
        begun_anew: called when the state of the channel was lost.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        channel: Channel,
        follower: Follower,
        *,
        keys: ChannelKeys,
        generations: str,
        me: str,
        options: EarOptions,
        token: Callable[[], bytes],
        heard: Callable[[Exception | None], None] = lambda _: None,
        begun_anew: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._follower = follower
        self._keys = keys
        self._inbox = keys.inbox + me
        self._generations = generations.encode()
        self._me = me
        self._options = options
        self._token = token
        self._tell = heard
        self._begun_anew = begun_anew
        self._unconfirmed: list[News] = []
        self._beat_at = -math.inf
        self._is_lost = False
        self._is_tracked = True
        self._has_heard = False
        self.settled = anyio.Event()

    def __repr__(self) -> str:
        return f"<Ear: {self._follower!r}>"

    async def listen(self) -> None:
        """Listen until it is cancelled, connecting again whenever the connection is lost."""
        pause = self._options.pause
        while True:
            if not self._channel.take(self, self._turn):
                self.settled.set()
                await anyio.sleep(self._options.beat)
                continue
            self._has_heard = False
            try:
                await self._listen_once()
            except Exception as error:  # noqa: BLE001 - an ear that ends with its first surprise would be deaf for good
                self._lost(error)
            finally:
                self.settled.set()
                self._channel.leave(self)
            pause = self._options.pause if self._has_heard else min(2 * pause, self._options.longest_pause)
            await anyio.sleep(pause)

    @property
    def registering(self) -> tuple[bytes, int, int]:
        """The arguments by which the instance registers with a beat."""
        return registering(self._me, self._follower.longest_untold, self._channel.longest_untold)

    @property
    def _turn(self) -> float:
        # Not heard of for so long, it has died with its event loop.
        return 3 * self._options.beat + 4 * self._options.timeout

    async def _listen_once(self) -> None:
        """Listen over one connection, until it is lost or another loop has taken over."""
        with anyio.fail_after(2 * self._options.timeout):
            connection = await self._connect()
        self._beat_at = -math.inf
        try:
            with anyio.fail_after(2 * self._options.timeout):
                await connection.connect()  # type: ignore[no-untyped-call]  # as redis-py ships it
            wire = Wire(connection, self._options.timeout, self._token)
            await self._track(wire)
            # It may have begun anew, at places below the last: what is read twice does no harm.
            self._channel.inbox_place = NOWHERE
            checked_at = anyio.current_time()
            while self._channel.take(self, self._turn):
                # What is sent once this instance leaves may arrive after its LEAVE, and list it again.
                await checkpoint_if_cancelled()
                if anyio.current_time() >= checked_at + self._options.check_every:
                    checked_at = anyio.current_time()
                    # A former master that was cut off has not been told that it is none any more.
                    if await leads_elsewhere(connection):
                        raise ConnectionError("the channel is on another server by now")
                await self._trip(wire)
        finally:
            await connection.disconnect(nowait=True)

    async def _track(self, wire: Wire) -> None:
        try:
            await wire.track(self._generations, self._touched)
            self._follower.told()
        except Refused as error:
            if self._is_tracked:
                self._is_tracked = False
                log_failure(
                    logger,
                    logging.WARNING,
                    "Redis does not tell when generations are touched: allow CLIENT TRACKING, or one that is deleted "
                    "by hand is noticed only when it is asked for again",
                    error=error,
                )

    def _touched(self, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            self._follower.lose()
            return
        for key in keys:
            self._follower.doubt(key[len(self._generations) :].rpartition(b":")[2])

    async def _trip(self, wire: Wire) -> None:
        """Confirm what was heard, ask for the channel's state where that is due, and wait for news."""
        wait = self._follower.is_following
        confirmed, self._unconfirmed = self._unconfirmed, []
        asked_at, listed_at = self._follower.now(), self._channel.now()
        is_due = not wait or anyio.current_time() >= self._beat_at + self._options.beat / 2
        if confirmed:
            wire.put(POST, *self._confirmations(confirmed))
        if is_due:
            self._beat_at = anyio.current_time()
            wire.put(BEAT, (*self._keys[:3], self._inbox), self.registering)
        if wait:
            places = (self._follower.place, self._channel.inbox_place)
            wire.put_wait(self._options.beat, (self._keys.stream, self._inbox), places)
        await wire.send()
        if confirmed:
            await wire.answer(POST)
        if is_due:
            beat = await wire.answer(BEAT)
            if self._channel.listed(beat, listed_at):
                if self._follower.has_begun_anew(beat):
                    self._begun_anew()
                self._follower.beat(beat, asked_at)
                self._found()
        if wait:
            self._take(await wire.news(self._options.beat))
            self._heard()

    def _take(self, streams: Streams) -> None:
        for place, item in streams.get(self._inbox.encode(), ()):
            self._channel.inbox_place = place
            self._channel.mail(read_fields(item))
        try:
            news = [read_news(place, read_fields(item)) for place, item in streams.get(self._keys.stream.encode(), ())]
        except (KeyError, ValueError):
            # Somebody else writes there: what is missing nobody knows.
            self._follower.lose()
            return
        taken = self._follower.take(news)
        self._unconfirmed = [each for each in taken if each.kind == "done" and each.sender != self._me.encode()]
        if not news and self._follower.is_behind:
            # Announced, and gone before it was read.
            self._follower.lose()

    def _confirmations(self, heard: Sequence[News]) -> tuple[list[str], list[bytes | int]]:
        inboxes = [self._keys.inbox + each.sender.decode(errors="replace") for each in heard]
        values = [msgspec.msgpack.encode((each.token, self._me)) for each in heard]
        return inboxes, [INBOX_MS, *(word for value in values for word in (CONFIRMED, value))]

    def _lost(self, error: Exception) -> None:
        self._tell(error)
        if not self._is_lost:
            self._is_lost = True
            log_failure(
                logger,
                logging.WARNING,
                "the channel of invalidations is not heard: what other instances invalidate is noticed only when "
                "Redis is asked again",
                error=error,
            )

    def _found(self) -> None:
        self._tell(None)
        self.settled.set()
        self._channel.heard(self._turn)

    def _heard(self) -> None:
        self._has_heard = True
        if self._is_lost:
            self._is_lost = False
            logger.warning("the channel of invalidations is heard again")
