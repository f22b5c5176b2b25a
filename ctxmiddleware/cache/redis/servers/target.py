"""What a Redis URL leads to: one server, the master that sentinels name, or the nodes of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ....errors import ConfigurationError
from ....secret import Secret

URL_FORMS: Final = (
    "write redis://host:6379/0, rediss://host:6379/0, unix:///path/to/socket, "
    "redis+sentinel://host:26379,host:26379/service/0 or redis+cluster://host:6379,host:6379"
)
_SCHEME: Final = re.compile(r"(rediss?)\+(sentinel|cluster)://", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@\s]+)(?::([0-9]{1,5}))?")
_FOR_SENTINELS: Final = "sentinel_"


class Kind(Enum):
    """What answers at an address."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Place(NamedTuple):
    """Where somebody listens."""

    host: str
    port: int


def text(value: object) -> str:
    """Return what a server sent as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a Redis URL leads.

    Args:
        url: how a server is spoken to, in the form the driver knows; whom its host names is asked `places` for, if any.
        kind: what answers there.
        places: the sentinels, or the nodes that are asked for the others.
        service: by which name the sentinels know the master.
        places_url: how the sentinels are spoken to; their user and password may be others than the master's.
    """

    url: Secret
    kind: Kind = Kind.SERVER
    places: tuple[Place, ...] = ()
    service: str = ""
    places_url: Secret | None = None


def target_of(url: Secret) -> Target:
    """Return where a URL leads.

    Raises:
        ConfigurationError: it is not in a form that is known; the message shows nothing of it.
    """
    text = url.reveal()
    known = _SCHEME.match(text)
    if known is None:
        return Target(url)
    rest, _, query = text[known.end() :].partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    kind = Kind(known[2].lower())
    places = tuple(_place(each, 26379 if kind is Kind.SENTINEL else 6379) for each in hosts.split(","))
    service, database = _named(path) if kind is Kind.SENTINEL else ("", _no_database(path))
    others, own = _apart(query)
    if own and kind is Kind.CLUSTER:
        raise ConfigurationError(f"redis: {_FOR_SENTINELS}... in the URL of a cluster, which has none; {URL_FORMS}")

    def spoken(user: str, database: str, options: list[tuple[str, str]]) -> Secret:
        host = places[0].host
        shown = f"[{host}]" if ":" in host else host
        words = f"?{urlencode(options)}" if options else ""
        return Secret(f"{known[1].lower()}://{user}{shown}:{places[0].port}/{database}{words}")

    sentinels = None
    if kind is Kind.SENTINEL:
        given = {name.removeprefix(_FOR_SENTINELS): value for name, value in own}
        if unknown := set(given) - {"username", "password"}:
            raise ConfigurationError(f"redis: the URL has {len(unknown)} unknown options for sentinels; {URL_FORMS}")
        login = ":".join(quote(given.get(word, ""), safe="") for word in ("username", "password"))
        sentinels = spoken(f"{login}@" if given else "", "0", others)
    return Target(spoken(user + at, database, others), kind, places, service, sentinels)


def _place(text: str, port: int) -> Place:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found[2] or port) < 65_536:
        raise ConfigurationError(f"redis: one of the hosts in the URL is not host:port; {URL_FORMS}")
    return Place(unquote(found[1].strip("[]")), int(found[2] or port))


def _named(path: str) -> tuple[str, str]:
    service, _, database = path.partition("/")
    if not service:
        raise ConfigurationError(f"redis: the URL names no service for the sentinels; {URL_FORMS}")
    return unquote(service), database or "0"


def _no_database(path: str) -> str:
    if path.strip("/") not in ("", "0"):
        raise ConfigurationError("redis: a database in the URL of a cluster, which has only number 0; leave it out")
    return "0"


def _apart(query: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the options for servers, and those for sentinels."""
    options = parse_qsl(query, keep_blank_values=True)
    own = [option for option in options if option[0].startswith(_FOR_SENTINELS)]
    return [option for option in options if option not in own], own
