"""How the text of a variable becomes a value: each reader raises ValueError for what is not allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from .admin.guard import LEAST_LENGTH
from .cache.redis.seal import key_faults
from .errors import ConfigurationError
from .identity.jwt.keys import LEAST_SECRET_BYTES
from .project import Project
from .secret import Secret
from .sources.endpoint import schema_faults

MIN_TOKEN_LENGTH: Final = LEAST_LENGTH
MIN_SECRET_BYTES: Final = LEAST_SECRET_BYTES

NAME_FORM: Final = "1 to 64 letters, digits, '_', '-' and '.'"

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SEVERAL: Final = re.compile(r"rediss?\+(?:sentinel|cluster)://", re.IGNORECASE)
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")


def name(text: str) -> str:
    """Read a name that keys in Redis may begin with."""
    if not is_name(text):
        raise ValueError(text)
    return text


def is_name(text: object) -> bool:
    """Return whether a text can be the name of a plugin or a namespace."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def web_url(text: str) -> str:
    """Read an http or https URL, which holds no user and no password: it is shown in messages."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or _BLANK.search(text):
        raise ValueError(text)
    # Reading it checks it.
    _ = parts.port
    return text


def project(text: str) -> Project:
    """Read the address of a project."""
    try:
        return Project.parse(text)
    except ConfigurationError:
        raise ValueError(text) from None


def secret_url(text: str) -> Secret:
    """Read the URL of a Redis, which may hold a password; the tier that is built with it looks closer."""
    # Of several hosts, as sentinels and clusters have them, the tier alone makes sense.
    if not _SEVERAL.match(text):
        parts = urlsplit(text)
        if not (parts.scheme == "unix" or (parts.scheme in ("redis", "rediss") and parts.hostname)):
            raise ValueError(text)
    return Secret(text)


def like(pattern: str | re.Pattern[str]) -> Callable[[str], str]:
    """Return a reader of what the whole of a pattern matches."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return read


def schema(text: str) -> str:
    """Read the name of a schema."""
    if schema_faults(text):
        raise ValueError(text)
    return text


def secret(text: str) -> Secret:
    """Read what must not be shown."""
    return Secret(text)


def shared_secret(text: str) -> Secret:
    """Read a secret that is long enough to sign with."""
    if len(text.encode("utf-8", "surrogateescape")) < MIN_SECRET_BYTES:
        raise ValueError(text)
    return Secret(text)


def token(text: str) -> Secret:
    """Read a token that every client can send in a header."""
    if len(text) < MIN_TOKEN_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(text)
    return Secret(text)


def keys(text: str) -> tuple[Secret, ...]:
    """Read one or more keys that seal, with commas between them."""
    keys = tuple(Secret(part.strip()) for part in text.split(",") if part.strip())
    # Taken as none, it would leave in the clear what somebody has asked to seal.
    if not keys or key_faults(keys):
        raise ValueError(text)
    return keys
