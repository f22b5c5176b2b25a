"""From a source to what the cache calls: one user or many, each with an answer or an error of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from numbers import Real
from types import UnionType
from typing import Annotated, Generic, TypeVar, get_args, get_origin, is_typeddict

import anyio

from .breaker import State
from .cache.base import Ask, Fetched
from .errors import SourceError, SourceMisconfigured, SourceUnavailable
from .principal import KINDS, Identity
from .sources.base import ContextSource, Loaded
from .sources.exchange import OutOfTime
from .sources.paths import Paths
from .sources.singly import in_half_the_time
from .splitting import Split
from .stray import is_stray

logger = logging.getLogger("ctxmiddleware.loading")

T = TypeVar("T")
R = TypeVar("R")

BATCH_SIZE = 100
_AHEAD_AT_MOST = 0.5


class Loading(Generic[T]):
    """Asks a source for users' contexts.

    A batch that failed as a whole is split, not failed: into halves, and those again, down to single users; unless the
    source can answer nobody. Those who were answered when its time ends have their answers. A source that does not
    tell the state of its own ways (`path_states`) is guarded here.

    Args:
        source: what is asked.
        context_type: what it is to give; anything else it gives is an error.
        exact: whether a subclass is refused: Redis gives back exactly the type it was told to decode.
        outage: exceptions of the source's own driver that say it cannot be reached, beside OSError.
        prepare: brings a context into the form in which every tier gives it, or raises SourceError.
        load_timeout: seconds a load may take in all; a batch ends a little before.
    """

    def __init__(
        self,
        source: ContextSource[T],
        *,
        context_type: type[T],
        exact: bool = False,
        outage: tuple[type[Exception], ...] = (),
        prepare: Callable[[T], T] | None = None,
        load_timeout: float = math.inf,
    ) -> None:
        self._source = source
        self._load_timeout = load_timeout
        # Whoever waits for the load ends it at its time, and with it every answer that has come.
        self._within = load_timeout - min(_AHEAD_AT_MOST, load_timeout / 10)
        self._fetch_many = getattr(source, "fetch_many", None)
        self._kind = _class_of(context_type)
        self._exact = exact and isinstance(context_type, type) and self._kind is not object
        self._prepare = prepare
        self._outage: tuple[type[Exception], ...] = (OSError, *outage)
        self._finds_by: tuple[str, ...] = tuple(getattr(source, "finds_by", KINDS))
        self._own_states = getattr(source, "path_states", None)
        ways = ("fetch",) if self._fetch_many is None else ("fetch", "fetch_many")
        # Only where the source has no guard of its own: guarded twice, an outage would be told of twice.
        self._paths = Paths(ways, cancelled_fails_after=0.0)

    @property
    def batch_size(self) -> int:
        """How many users one call may be for."""
        return 1 if self._fetch_many is None else BATCH_SIZE

    def path_states(self) -> Mapping[str, State]:
        """Return the state of each way to the source."""
        states: Mapping[str, State] = self._paths.states() if self._own_states is None else self._own_states()
        return states

    def path_health(self) -> Mapping[str, str]:
        """Return what the calls so far have shown of each way to the source."""
        if self._own_states is None:
            return self._paths.health()
        health: Mapping[str, str] = getattr(self._source, "path_health", self._own_states)()
        return health

    def tell_source(self, name: str | None, ago: float) -> None:
        """Tell the source of an invalidation, if it wants to know.

        A source that reads from a replica must not bring back what was just invalidated, here or in another process.

        Args:
            name: the name of a cache key, or None for all users.
            ago: seconds since it happened.
        """
        told = getattr(self._source, "invalidated", None)
        if told is None:
            return
        try:
            told(None if name is None else Identity.from_cache_key(("", name)), ago=ago)
        except Exception:
            logger.exception("the source's `invalidated` failed; the invalidation goes on")

    async def __call__(self, asks: Sequence[Ask]) -> list[Fetched[T] | Exception]:
        """Return what the source has for each key, in their order, an error in the place of what it did not give.

        Raises:
            Exception: what the source raised, where there is one key.
        """
        for ask in asks:
            if ask.moved_ago < math.inf:
                self.tell_source(ask.key[1], ask.moved_ago)
        identities = [Identity.from_cache_key(ask.key) for ask in asks]
        if len(identities) == 1:
            return [await self._one(identities[0])]
        # An identity of the wrong kind would fail the whole batch.
        fitting = [identity for identity in dict.fromkeys(identities) if identity.key in self._finds_by]
        split = Split(self._many, self._one)
        if fitting:
            with anyio.move_on_after(self._within):
                await split.ask(fitting)
        late = SourceUnavailable(f"the source did not answer within {self._load_timeout:g} s")
        return [self._answer_to(identity, split.found, late) for identity in identities]

    def _answer_to(
        self, identity: Identity, found: Mapping[Identity, Fetched[T] | Exception], late: Exception
    ) -> Fetched[T] | Exception:
        return found.get(identity, late) if identity.key in self._finds_by else self._misfit(identity)

    def _misfit(self, identity: Identity) -> SourceMisconfigured:
        how = " or ".join(self._finds_by)
        return SourceMisconfigured(f"the source finds users by {how}, and this identity is keyed by its {identity.key}")

    async def _one(self, identity: Identity) -> Fetched[T]:
        if identity.key not in self._finds_by:
            raise self._misfit(identity)
        fetch = self._source.fetch
        if self._own_states is not None:
            return self._fetched(await _whole(fetch(identity), self._outage))
        answer = await self._paths.through(
            "fetch", lambda: _whole(fetch(identity), self._outage), who=identity.cache_key
        )
        return self._fetched(answer)

    async def _many(self, identities: Sequence[Identity]) -> dict[Identity, Fetched[T] | Exception]:
        fetch_many = self._fetch_many
        if fetch_many is None:
            raise SourceMisconfigured("the source has no fetch_many")

        async def call() -> object:
            answer: object = await _whole(fetch_many(identities), self._outage)
            return answer

        if self._own_states is not None:
            answers = await call()
        else:
            answers = await self._paths.through("fetch_many", lambda: in_half_the_time(call), many=True)
        if not isinstance(answers, Mapping):
            raise SourceMisconfigured(
                f"the source's fetch_many gave {type(answers).__name__}; it gives a mapping by identity"
            )
        found = _by_cache_key(answers)
        return {identity: self._answer(found.get(identity.cache_key, ())) for identity in identities}

    def _answer(self, answers: Sequence[object]) -> Fetched[T] | Exception:
        if not answers:
            # Taken for an unknown user, it would lock out a user who is known.
            return SourceError("the source's answer leaves out an identity it was asked for")
        if len(answers) > 1:
            return SourceError("the source's answer has several contexts for one identity")
        [answer] = answers
        if isinstance(answer, SourceError):
            return answer
        try:
            return self._fetched(answer)
        except SourceError as error:
            return error

    def _fetched(self, answer: object) -> Fetched[T]:
        loaded: Loaded[T] = answer if isinstance(answer, Loaded) else Loaded(answer)  # type: ignore[arg-type]  # checked below
        if loaded.value is not None and not self._fits(loaded.value):
            raise SourceMisconfigured(
                f"the source gave {type(loaded.value).__name__} where context_type is {self._kind.__name__}: "
                "give ContextPlugin the context_type of its source"
            )
        if not _is_time(loaded.ttl):
            raise SourceMisconfigured("the source gave a ttl that is no number of seconds")
        value = loaded.value
        if value is not None and self._prepare is not None:
            value = self._prepare(value)
        return Fetched(value, loaded.origin or type(self._source).__name__, loaded.ttl)

    def _fits(self, value: T) -> bool:
        # Through Redis the further fields of a subclass would vanish.
        return type(value) is self._kind if self._exact else isinstance(value, self._kind)


async def _whole(call: Awaitable[R], outage: tuple[type[Exception], ...]) -> R:
    try:
        return await call
    except SourceError:
        raise
    except TimeoutError as error:
        raise OutOfTime("the source ran out of its own time") from error
    except outage as error:
        raise SourceUnavailable(f"the source cannot be reached ({type(error).__name__})") from error
    except BaseException as error:
        if not is_stray(error):
            raise
        # As any failure for one user it must not fail the rest of his batch.
        raise SourceUnavailable("something the source waited for was cancelled") from error


def _by_cache_key(answers: Mapping[object, object]) -> dict[tuple[str, str], list[object]]:
    found: dict[tuple[str, str], list[object]] = {}
    for identity, answer in answers.items():
        if not isinstance(identity, Identity):
            raise SourceMisconfigured(
                f"the source's fetch_many gave a mapping by {type(identity).__name__}; it gives one by identity"
            )
        found.setdefault(identity.cache_key, []).append(answer)
    return found


def _is_time(ttl: object) -> bool:
    return ttl is None or (isinstance(ttl, Real) and not isinstance(ttl, bool))


def _class_of(context_type: object) -> type:
    """Return the class that values of a type are instances of; object where the type is no class of its own."""
    if is_typeddict(context_type):
        return dict
    if get_origin(context_type) is Annotated:
        return _class_of(get_args(context_type)[0])
    if get_origin(context_type) is UnionType:
        return object
    found = get_origin(context_type) or context_type
    return found if isinstance(found, type) else object
