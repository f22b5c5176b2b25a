"""Whether what is private shows up anywhere but in the contexts themselves."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import redis

from ctxmiddleware import BearerToken, ContextPlugin, Identity, InvalidationFailed, SourceUnavailable, UserContext
from ctxmiddleware.errors import ContextError
from ctxmiddleware.testing import StaticSource

from .backends import asyncio_only
from .cache.rig import PATIENT
from .people import ADA, BROKEN, DOWN, TOKEN, known
from .privacy import LOGGER, PRIVATE, Privacy

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6ImEifQ.c2lnbmF0dXJl"
PLANTED = [ADA, JWT, "sb_secret_abcdef", "Bearer 0123456789abcdef"]


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("where", ["text", "argument", "field", "nested field", "error"])
def test_what_is_planted_is_found(planted: str, where: str) -> None:
    """Or the search of the whole suite would prove nothing."""
    search, logger = Privacy(), logging.getLogger("planted")
    logger.addHandler(search)
    logger.propagate = False
    match where:
        case "text":
            logger.warning(f"hello {planted}")  # noqa: G004 - as one may do by mistake
        case "argument":
            logger.warning("hello %s", planted)
        case "field":
            logger.warning("hello", extra={"who": planted})
        case "nested field":
            logger.warning("hello", extra={"who": {"in": [planted]}})
        case _:
            try:
                try:
                    raise ValueError(planted)
                except ValueError as inner:
                    raise RuntimeError("outer") from inner
            except RuntimeError:
                logger.exception("it failed")
    logger.removeHandler(search)
    assert len(search.leaks) == 1


def test_what_is_harmless_is_not() -> None:
    """Addresses of servers, names of users' hashes, and words."""
    search, logger = Privacy(), logging.getLogger("harmless")
    logger.addHandler(search)
    logger.warning("redis://127.0.0.1:6379/0 does not answer", extra={"user": "0a1b2c3d4e5f6071", "scheme": "Bearer"})
    logger.removeHandler(search)
    assert (search.seen, search.leaks) == (1, [])


def test_the_search_is_under_way(privacy: Privacy) -> None:
    """It sees what any part of the library says, at every level."""
    seen = privacy.seen
    logging.getLogger("ctxmiddleware.any.part").debug("a word")
    assert privacy.seen == seen + 1
    assert LOGGER.level == logging.DEBUG


def _is_private(text: str) -> bool:
    return any(each.search(text) for each in PRIVATE)


@pytest.mark.anyio
@asyncio_only
async def test_no_key_of_redis_no_counter_and_no_repr_shows_who_or_with_what(redis_url: str) -> None:
    """Only the values do, which can be sealed."""
    source: StaticSource[UserContext] = StaticSource(known())
    plugin = ContextPlugin(source=source, redis=redis_url, redis_options=PATIENT, admin_guard=BearerToken(TOKEN))
    async with plugin:
        for email in known():
            for identity in (Identity(email), Identity(email, tenant="acme")):
                with suppress(ContextError):
                    await plugin.resolve(identity)
        await plugin.invalidate(ADA)
        with redis.Redis.from_url(redis_url) as client:
            keys = [key.decode() for key in client.scan_iter()]
            told = [*client.xrange("ctx:{default:00}:s"), *client.zrange("ctx:{default:00}:p", 0, -1)]
        assert len(keys) > len(known())
        shown = [*keys, repr(told), repr(plugin), repr(plugin.stats()), repr(vars(plugin)), repr(plugin.admin)]
        assert [each for each in shown if _is_private(each)] == []
        assert TOKEN not in "".join(shown)


def test_no_error_of_ours_shows_who() -> None:
    """Its text and its repr are for logs, and for whoever reads them."""
    errors = [
        *[error for error in known().values() if isinstance(error, Exception)],
        SourceUnavailable("down", retry_after=1),
        InvalidationFailed({"redis": "failed"}),
    ]
    assert {type(error) for error in errors} >= {type(known()[DOWN]), type(known()[BROKEN])}
    assert not any(_is_private(f"{error}{error!r}") for error in errors)
    assert not _is_private(repr(Identity(ADA, tenant="acme")))
