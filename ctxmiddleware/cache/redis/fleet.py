"""An instance's place among the others that share a Redis: what it hears of them, and what it tells them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup

from ... import forking
from ...instance import instance_name
from ...stats import Counters
from ...tracebacks import reduced
from ..base import Key
from ..shared import Listener, Reach, SharedTierFailed
from .announcing import Announcer
from .channel import LANDED, Channel, Follower
from .ear import INBOX_MS, Ear, EarOptions
from .incarnation import MARK_MS
from .keys import KeySpace
from .landings import Landings
from .lua.channel import BEAT, LEAVE, POST
from .lua.invalidation import MARK
from .options import RedisOptions
from .order import answer_of
from .register import entry_of, registering
from .servers.driver import Call, TooFewReplicas, reason_of
from .session import Session
from .way import Way

LONGEST_BEAT: Final = 1.0
REGISTERED_EVERY: Final = 10.0


class Fleet:
    """What is shared by all event loops of this process.

    Args:
        keys: of the namespace.
        counters: where events are counted.
        options: times.
        token: makes a value never used before.
        is_named: returns whether Redis has identified its server.
    """

    def __init__(
        self,
        keys: KeySpace,
        counters: Counters,
        options: RedisOptions,
        token: Callable[[], bytes],
        is_named: Callable[[], bool] = lambda: True,
    ) -> None:
        self._keys = keys
        self._is_named = is_named
        self._counters = counters
        self._options = options
        self._token = token
        self._me = ""
        # One for each loop that listens; no lock, for a loop may be left by the garbage collector.
        self._loops: list[None] = []
        self._epoch = forking.epoch()
        self._follower: Follower | None = None
        self.landings = Landings(lambda key: keys.of(key).lease.encode())
        self._channel = Channel(self.landings.landed)

    @property
    def me(self) -> str:
        """The name of this instance."""
        # Named late: processes are forked from one that has made the plugin already.
        if f":{os.getpid()}:" not in self._me:
            self._me = instance_name()
        return self._me

    def listen(self, listener: Listener) -> None:
        """Tell somebody what is heard from now on."""
        self._follower = Follower(listener, self._counters, self._channel.own)
        self._channel.longest_untold = listener.longest_untold

    @property
    def is_heard(self) -> bool:
        """Whether this process hears what the others invalidate."""
        return self._follower is not None and self._follower.is_following and self._channel.is_heard()

    @property
    def is_listed(self) -> bool:
        """Whether the reports of other instances count this one in for as long as it may serve what it gets now."""
        return self._follower is None or self._channel.is_listed()

    async def begin(self, tasks: TaskGroup, way: Way, session: Session) -> None:
        """Listen in one more event loop, in a task that ends when it is cancelled.

        Args:
            tasks: where.
            way: to the server that holds the channel.
            session: records whether the channel replies or is lost.
        """
        self._loops.append(None)
        if self._follower is None:
            return
        ear = self._ear(way, self._follower, session)
        tasks.start_soon(ear.listen)
        tasks.start_soon(self._stay_listed, way, self._follower)
        # Wait until this instance is subscribed: it would miss invalidations between a look and the subscription.
        with anyio.move_on_after(2 * self._options.timeout):
            await ear.settled.wait()

    async def _stay_listed(self, way: Way, follower: Follower) -> None:
        """Register over the pool while the channel is lost, until this task is cancelled."""
        keys = self._keys.channel()
        while True:
            await anyio.sleep(REGISTERED_EVERY)
            if self._channel.is_heard():
                continue
            token, asked_at = self._token(), self._channel.now()
            arguments = registering(self.me, follower.longest_untold, self._channel.longest_untold)
            call = Call(BEAT, [*keys[:3], keys.inbox + self.me], (token, *arguments))
            # Where Redis does not answer, nothing is looked up in it either.
            with contextlib.suppress(Exception), anyio.fail_after(2 * self._options.timeout):
                (reply,) = await way.run([call])
                self._channel.listed(answer_of(BEAT, token, reply), asked_at)

    def leave(self) -> Call | None:
        """Listen in one event loop less, and return the command that ends the last one, to be sent before `left`.

        Else every invalidation would wait for this instance for a while.
        """
        self._loops.pop()
        is_last = not self._loops
        # In a forked process the place of this instance is its parent's to leave.
        if self._follower is None or not is_last or self._epoch != forking.epoch():
            return None
        # No invalidation counts this instance in from now on.
        self._channel.leave_list()
        self._follower.leave()
        entry = entry_of(self.me, self._follower.longest_untold)
        return Call(LEAVE, [self._keys.channel().listeners], (self._token(), entry))

    def left(self, leaving: Call | None) -> None:
        """Record that the command of `leave` was sent, or cannot be."""
        if leaving is not None:
            self._channel.left_list()

    async def invalidate(
        self,
        session: Session,
        names: Sequence[str] | None,
        keep_ms: int,
        partitions: Sequence[str] = (),
        *,
        known_silent: Collection[str] = (),
    ) -> Reach:
        """Put new generations in force for names, or for everyone where they are None, and announce them.

        Args:
            session: the event loop's.
            names: the names.
            keep_ms: milliseconds a generation lives.
            partitions: in which the names may have values.
            known_silent: instances whose confirmation is not waited for.

        Raises:
            SharedTierFailed: Redis did not say that it has.
        """
        wait = self._options.invalidation_wait
        if not await session.take_place(wait):
            raise SharedTierFailed(f"no connection to Redis was free for {wait:g} s")
        announcer = Announcer(
            self._keys,
            self._channel,
            me=self.me,
            token=self._token,
            options=self._options,
            is_named=self._is_named,
        )
        failure: SharedTierFailed | None = None
        with announcer.begin() as announcement:
            try:
                with anyio.fail_after(wait):
                    await announcer.carry_out(announcement, session.pool, names, keep_ms, partitions)
            except TooFewReplicas as error:
                raise SharedTierFailed(
                    f"the invalidation is in force, and may be lost with its server: {error}"
                ) from error
            # The driver raises more than its own errors when what answers is not Redis.
            except Exception as error:  # noqa: BLE001 - raised below
                session.fault(error)
                failure = SharedTierFailed(f"Redis did not take the invalidation: {reason_of(error)}")
                failure.__cause__ = reduced(error)
            finally:
                session.places.release()
            if failure is not None:
                # Outside of the handler: the driver's own error holds the password in its frames.
                raise failure
            session.success()
            return await announcement.reach(known_silent)

    async def mark(self, session: Session, names: Sequence[str] | None) -> bool:
        """Let names, or everyone where it is None, count as invalidated just now; return whether Redis has said so."""
        if not await session.take_place(self._options.timeout):
            return False
        everyone = [mark for _, mark in self._keys.everyone()]
        marks = everyone if names is None else [self._keys.of(("", name)).mark for name in names]
        # One by one: those of a cluster are in several slots.
        tokens = [self._token() for _ in marks]
        calls = [Call(MARK, [mark], (token, MARK_MS)) for mark, token in zip(marks, tokens, strict=True)]
        is_marked = False
        try:
            with contextlib.suppress(Exception), anyio.fail_after(2 * self._options.timeout):
                for token, reply in zip(tokens, await session.pool.run(calls), strict=True):
                    answer_of(MARK, token, reply)
                is_marked = True
        finally:
            session.places.release()
        return is_marked

    def wake(self, session: Session, waiting: Iterable[tuple[Key, Iterable[bytes]]]) -> None:
        """Tell instances that loads they wait for have landed; a message that is lost costs them a moment."""
        channel = self._keys.channel()
        letters = [
            (channel.inbox + instance.decode(errors="replace"), self._keys.of(key).lease)
            for key, instances in waiting
            for instance in instances
        ]
        if letters:
            arguments = [word for _, lease in letters for word in (LANDED, lease)]
            session.tell(Call(POST, [inbox for inbox, _ in letters], (self._token(), INBOX_MS, *arguments)))

    def _ear(self, way: Way, follower: Follower, session: Session) -> Ear:
        keys = self._keys.channel()
        beat = min(LONGEST_BEAT, follower.lasts / 4)
        return Ear(
            lambda: way.connection(keys.state),
            self._channel,
            follower,
            keys=keys,
            generations=self._keys.generations,
            me=self.me,
            options=EarOptions(
                beat=beat,
                timeout=self._options.timeout,
                # A former master that was cut off proves nothing.
                check_every=min(beat, self._options.check_every),
            ),
            token=self._token,
            heard=session.heard,
            # An instance that begins next would take this server for one that has just been emptied.
            begun_anew=session.check_soon,
        )
