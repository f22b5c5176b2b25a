"""How an invalidation is put in force in Redis and announced, and who has confirmed it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple, Self, cast

import anyio

from ...bell import Bell
from ..names import digest_of
from ..shared import Reach
from .channel import Channel, Confirmation
from .incarnation import MARK_MS
from .keys import KeySpace
from .lua.channel import LISTED_MS, Roll
from .lua.invalidation import ANNOUNCE, INVALIDATE, RENEW
from .options import RedisOptions
from .order import answer_of
from .register import read_entry
from .servers.driver import Call, Spread, TooFewReplicas
from .way import Way

# Who has not said for longer that he listens is not waited for; he is told of all the same.
LIVE_MS: Final = 3000


class _What(NamedTuple):
    """The keys that an invalidation renews and removes: generations with their marks, values; digest of the name."""

    pairs: Sequence[tuple[str, str]]
    values: Sequence[str]
    digest: bytes


class Announcer:
    """Carries out invalidations.

    Args:
        keys: of the namespace.
        channel: where confirmations arrive.
        me: the instance's name.
        token: makes a value never used before.
        options: times, and how many replicas must have it.
        is_named: returns whether Redis has identified its server; if not, its list of instances may be an old one.
    """

    def __init__(
        self,
        keys: KeySpace,
        channel: Channel,
        *,
        me: str,
        token: Callable[[], bytes],
        options: RedisOptions,
        is_named: Callable[[], bool] = lambda: True,
    ) -> None:
        self._keys = keys
        self._channel = channel
        self._me = me
        self._token = token
        self._is_named = is_named
        self._confirm_timeout = options.confirm_timeout
        # Half of what an answer may take: the other half is for the script itself.
        self._replicas = options.replicas, max(1, int(min(options.timeout, options.invalidation_wait) * 500))

    def begin(self) -> Announcement:
        """Return an invalidation that is not carried out yet."""
        return Announcement(self._channel, self._token(), self._me, self._confirm_timeout)

    async def carry_out(
        self,
        announcement: Announcement,
        way: Way,
        names: Sequence[str] | None,
        keep_ms: int,
        partitions: Sequence[str] = (),
    ) -> None:
        """Put new generations in force for names, or for everyone where they are None, and announce each.

        Args:
            announcement: the invalidation of the last; an instance that has confirmed it has taken the others before.
            way: to Redis.
            names: the names.
            keep_ms: milliseconds a generation lives.
            partitions: in which the names may have values, which are removed.

        Raises:
            Exception: Redis did not say that it has.
        """
        everyone = _What(self._keys.everyone(), [], b"")
        whats = [everyone] if names is None else [self._what(name, partitions) for name in names]
        tokens = [*(self._token() for _ in whats[1:]), announcement.token]
        carry_out = self._in_steps if isinstance(way.client, Spread) else self._at_once
        announcement.roll, knew = await carry_out(way, list(zip(tokens, whats, strict=True)), keep_ms)
        announcement.knew = None if names is None else knew
        announcement.is_named = self._is_named()

    def _what(self, name: str, partitions: Sequence[str]) -> _What:
        one = self._keys.of(("", name))
        values = [self._keys.of((partition, name)).value for partition in partitions]
        return _What([(one.generation, one.mark)], values, digest_of(name))

    async def _at_once(self, way: Way, whats: Sequence[tuple[bytes, _What]], keep_ms: int) -> tuple[Roll, bool]:
        calls = []
        for token, what in whats:
            keys = [*(key for pair in what.pairs for key in pair), *what.values, *self._keys.channel()[:3]]
            arguments = (token, MARK_MS, keep_ms, len(what.pairs), what.digest, self._me)
            calls.append(Call(INVALIDATE, keys, arguments, *self._replicas))
        answers = cast("list[tuple[Roll, int]]", await self._run(way, [token for token, _ in whats], calls))
        return answers[-1][0], any(knew == 1 for _, knew in answers)

    async def _in_steps(self, way: Way, whats: Sequence[tuple[bytes, _What]], keep_ms: int) -> tuple[Roll, bool]:
        # Where the channel is on another server than the generations, whoever reads the former ones in between has
        # been told beforehand not to trust what he reads.
        await self._announce(way, "intent", [(token, what.digest, b"") for token, what in whats])
        calls = [
            Call(RENEW, [*pair, *what.values], (token, MARK_MS, keep_ms, 1), *self._replicas)
            for token, what in whats
            for pair in what.pairs
        ]
        replies = await way.run(calls)
        tokens = [token for token, what in whats for _ in what.pairs]
        lacking = [reply for reply in replies if isinstance(reply, TooFewReplicas)]
        answers = {
            token: answer_of(RENEW, token, reply)
            for token, reply in zip(tokens, replies, strict=True)
            if not isinstance(reply, TooFewReplicas)
        }
        # Done it is all the same: unsaid, everybody would doubt what he looks up for a while.
        generations = {token: answers[token][0] if what.digest and token in answers else b"" for token, what in whats}
        roll = await self._announce(way, "done", [(token, what.digest, generations[token]) for token, what in whats])
        if lacking:
            raise lacking[0]
        return roll, any(knew == 1 for _, knew in answers.values())

    async def _announce(self, way: Way, kind: str, news: Sequence[tuple[bytes, bytes, bytes]]) -> Roll:
        channel = self._keys.channel()[:3]
        calls = [Call(ANNOUNCE, channel, (token, kind, digest, new, self._me)) for token, digest, new in news]
        rolls = await self._run(way, [token for token, _, _ in news], calls)
        return cast("Roll", rolls[-1])

    async def _run(self, way: Way, tokens: Sequence[bytes], calls: Sequence[Call]) -> list[Any]:
        replies = await way.run(calls)
        return [
            answer_of(call.script, *each) for call, each in zip(calls, zip(tokens, replies, strict=True), strict=True)
        ]


class Announcement:
    """One invalidation on its way, inside `with`, with the list of instances at that time.

    Args:
        channel: where confirmations arrive.
        token: a value never used before.
        me: the instance's name.
        timeout: seconds to wait for the instances that listen.
    """

    def __init__(self, channel: Channel, token: bytes, me: str, timeout: float) -> None:
        self.token = token
        self.roll = Roll([], 0, 0)
        self.knew: bool | None = None
        self.is_named = True
        self._channel = channel
        self._me = me
        self._timeout = timeout
        self._bell = Bell()
        self._confirmation = Confirmation(self._bell.ring)

    def __enter__(self) -> Self:
        self._channel.expect(self.token, self._confirmation)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._channel.unexpect(self.token, failed=kind is not None)

    async def reach(self, known_silent: Collection[str] = ()) -> Reach:
        """Wait for the instances that listen, and return which have confirmed.

        Args:
            known_silent: instances that are not waited for.
        """
        others = dict(self._others())
        live = {name for name, (_, age_ms) in others.items() if age_ms <= LIVE_MS} - set(known_silent)
        heard = self._confirmation.heard
        with anyio.move_on_after(self._timeout):
            while not live <= heard.keys():
                await self._bell.wait()
        silent = tuple(
            (name, _left(longest, age_ms)) for name, (longest, age_ms) in sorted(others.items()) if name not in heard
        )
        return Reach(self._me, tuple(sorted(heard.items())), silent, self._unlisted(), self.knew)

    def _others(self) -> Iterator[tuple[str, tuple[float, int]]]:
        for entry, age_ms in self.roll.listening:
            with contextlib.suppress(ValueError, OverflowError):  # something else writes there
                name, longest = read_entry(entry)
                if name != self._me:
                    yield name, (longest, age_ms)

    def _unlisted(self) -> tuple[float, str] | None:
        """Return within how many seconds an instance stops that is not in the list, and why there may be one."""
        longest = max(self._channel.longest_untold, self.roll.longest_ms / 1000)
        if not self.is_named:
            return longest, "Redis does not say which server it is (allow INFO), so that its list may be an old one"
        age = self.roll.age_ms / 1000
        if age >= LISTED_MS / 1000 + longest:
            return None
        return _left(longest, self.roll.age_ms), f"Redis has kept the list of instances for {age:.0f} s only"


def _left(longest: float, age_ms: int) -> float:
    """Return the seconds for which an instance may serve that was last listed so many milliseconds ago."""
    # It stops to keep what it loads at the end of LISTED_MS.
    return max(0.0, min(longest, longest + (LISTED_MS - age_ms) / 1000))
