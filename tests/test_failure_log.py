"""Whether an outage is one line with its reason, however many requests notice it, and its end a line of that level."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from starlette.types import Scope

from ctxmiddleware import BearerJWT, ConfigurationError, ContextPlugin, Identity, UserContext, UserContextMiddleware
from ctxmiddleware.errors import InvalidationFailed
from ctxmiddleware.failure_log import SECONDS, Seldom, log_failure, reason_of
from ctxmiddleware.stats import RedisStats
from ctxmiddleware.testing import FakeClock
from examples.servers import Valkey

from .asgi import ask, http_scope, no_lifespan
from .backends import asyncio_only
from .cache.rig import PATIENT
from .identity.issuer import EC, ISSUER, asking, key_set, publishing, signed, wall_clock
from .people import ADA, DOWN, plugin_of
from .waiting import eventually_async


class Written(logging.Handler):
    """Keeps records, and what a handler with Python's own format writes of them."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self.records.append(record)
        self.lines += self.format(record).splitlines()

    def levels(self, *texts: str) -> list[str]:
        """Return the levels of the lines that hold texts, one for each line."""
        return [record.levelname for record in self.records if any(text in record.getMessage() for text in texts)]


@contextmanager
def writing(level: int = logging.INFO) -> Iterator[Written]:
    """Write the log of the package from a level."""
    written, logger = Written(level), logging.getLogger("ctxmiddleware")
    before = logger.level
    logger.addHandler(written)
    logger.setLevel(level)
    try:
        yield written
    finally:
        logger.removeHandler(written)
        logger.setLevel(before)


@pytest.mark.anyio
@asyncio_only
async def test_redis_stopped_is_a_few_lines_and_its_return_has_their_level() -> None:
    """Hundreds of requests, the channel and the probe notice it; no line has a traceback, and each names its reason."""
    with Valkey.start() as server, writing() as written:
        plugin = plugin_of(redis=server.url, redis_options=PATIENT)
        app = UserContextMiddleware(no_lifespan, plugin=plugin)

        async def load(first: int) -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(first, first + 20):
                    tasks.start_soon(ask, app, http_scope(user=f"user{number}@example.org"))

        async with plugin:
            await load(0)
            await eventually_async(lambda: _redis(plugin).channel == "heard")
            written.lines.clear()
            server.kill()
            for turn in range(1, 21):
                await load(20 * turn)
            await eventually_async(lambda: _redis(plugin).channel == "not heard" and _redis(plugin).state == "failing")
            with pytest.raises(InvalidationFailed):
                await plugin.invalidate(ADA)
            lost = [line for line in written.lines if not line.startswith("WARNING ctxmiddleware.refusals")]
            server.restart()
            await eventually_async(lambda: written.levels("is heard again") and written.levels("Redis answers again"))
    assert len(lost) == 3, lost
    assert all("Error: " in line or "Failed: " in line or "again" in line for line in lost)
    assert set(written.levels("Redis does not answer", "Redis answers again")) == {"ERROR"}
    assert set(written.levels("is not heard", "is heard again")) == {"WARNING"}


def _redis(plugin: ContextPlugin[UserContext]) -> RedisStats:
    redis = plugin.stats().redis
    assert redis is not None
    return redis


@pytest.mark.anyio
@asyncio_only
async def test_the_traceback_of_an_outage_is_there_at_debug() -> None:
    """For the one line of each component."""
    with Valkey.start() as server, writing(logging.DEBUG) as written:
        plugin = plugin_of(redis=server.url, redis_options=PATIENT)
        async with plugin:
            await plugin.resolve(ADA)
            server.kill()
            with pytest.raises(InvalidationFailed):
                await plugin.invalidate(ADA)
    traced = [record for record in written.records if record.exc_info]
    assert traced
    assert {record.levelno for record in traced} == {logging.DEBUG}


@pytest.mark.anyio
async def test_a_source_that_is_down_is_one_line_for_all_requests_of_a_minute() -> None:
    """For any number of requests; their own lines are DEBUG."""
    plugin = plugin_of()
    with writing() as written:
        for _ in range(200):
            await ask(UserContextMiddleware(no_lifespan, plugin=plugin, required=True), http_scope(user=DOWN))
    assert len(written.lines) == 1
    assert "the source is down" in written.lines[0]


@pytest.mark.anyio
async def test_warming_while_the_source_is_down_is_one_line() -> None:
    """The report counts the users; each has its line at DEBUG."""
    plugin = plugin_of()
    with writing() as written:
        report = await plugin.warm([Identity(DOWN, tenant=str(number)) for number in range(100)])
    assert report.failed == 100
    assert len(written.lines) == 1
    assert "a context could not be warmed: SourceUnavailable: the source is down" in written.lines[0]


@pytest.mark.anyio
@pytest.mark.parametrize(("with_keys", "level"), [(True, "WARNING"), (False, "ERROR")])
async def test_keys_that_cannot_be_fetched_are_one_line_and_their_return_has_its_level(
    *,
    with_keys: bool,
    level: str,
) -> None:
    """A WARNING while known keys stay in force, and an ERROR where no user can be identified."""
    async with publishing(key_set(EC)) as server:
        clock = FakeClock()
        bearer = BearerJWT(server.url, issuer=ISSUER, wall_clock=wall_clock, clock=clock)
        source = bearer._published
        assert source is not None
        app = UserContextMiddleware(no_lifespan, plugin=plugin_of(identify=bearer))
        with writing() as written:
            if with_keys:
                await ask(app, _with(signed()))
            server.status = 503
            for turn in range(5):
                clock.advance(700)
                await ask(app, _with(signed(sub=f"{turn}")))
                await eventually_async(lambda: source._flight.get() is None)
            assert server.fetches == 5 + with_keys
            await eventually_async(lambda: written.levels("cannot be fetched and"))
            server.status = 200
            clock.advance(700)
            await ask(app, _with(signed(sub="again")))
            await eventually_async(lambda: written.levels("can be fetched again"))
        assert written.levels("cannot be fetched and", "can be fetched again") == [level, level]
        assert not any("Traceback" in line for line in written.lines)
        assert any("ValueError: it was answered with 503" in line for line in written.lines)


def _with(token: str) -> Scope:
    return {**http_scope(), **asking(token)}


@pytest.mark.anyio
async def test_a_broken_configuration_is_one_line_for_all_requests_of_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is a 500, and the line names the variables."""
    for variable in ("SUPABASE_URL", "SUPABASE_KEY"):
        monkeypatch.delenv(variable, raising=False)
    app = UserContextMiddleware(no_lifespan)
    with writing() as written:
        assert [(await ask(app, http_scope())).status for _ in range(50)] == [500] * 50
    assert written.levels("every request is refused") == ["ERROR"]


@pytest.mark.anyio
async def test_a_hook_that_fails_has_one_traceback_a_minute() -> None:
    """Refused requests without end, which cost nothing to send, do not fill the log."""
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(), required=True, on_refusal=lambda *_: 1 / 0)  # type: ignore[arg-type]  # it fails
    with writing() as written:
        for _ in range(50):
            assert (await ask(app, http_scope())).status == 401
    assert written.levels("on_refusal failed") == ["ERROR"]


def test_a_seldom_line_is_due_once_a_minute_for_each_kind() -> None:
    """Between two of them its level is DEBUG."""
    clock = FakeClock()
    seldom = Seldom(clock)
    assert [seldom.level(logging.ERROR) for _ in range(3)] == [logging.ERROR, logging.DEBUG, logging.DEBUG]
    assert seldom.level(logging.WARNING, "another") == logging.WARNING
    clock.advance(SECONDS - 0.5)
    assert seldom.level(logging.ERROR) == logging.DEBUG
    clock.advance(0.5)
    assert seldom.level(logging.ERROR) == logging.ERROR


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), "ValueError"),
        (ValueError("one\ntwo\nthree"), "ValueError: one"),
        (ConfigurationError("a", "b"), "ConfigurationError: 2 faults in the configuration:"),
        (OSError(111, "refused"), "ConnectionRefusedError: [Errno 111] refused"),
        (ExceptionGroup("g", [KeyError("a"), ExceptionGroup("h", [OSError("b")])]), "KeyError: 'a'; OSError: b"),
        (ValueError("no row for ada@example.com here"), "ValueError: no row for ... here"),
        (ValueError("redis://:pass@host:1 is down"), "ValueError: ... is down"),
        (ValueError("bad eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6ImEifQ.c2ln"), "ValueError: bad ..."),
        (ValueError("the key sb_secret_abc is wrong"), "ValueError: the key ... is wrong"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_reason_is_one_line_without_addresses_and_tokens(error: Exception, reason: str) -> None:
    """A group has the reasons of all its errors, each once."""
    assert reason_of(error) == reason


def test_a_failure_carries_the_types_of_its_errors(caplog: pytest.LogCaptureFixture) -> None:
    """A field for filters, and a long message is cut."""
    error = ExceptionGroup("two", [TimeoutError("x" * 5000)])
    log_failure(logging.getLogger("ctxmiddleware.test"), logging.ERROR, "%s failed", "it", error=error, extra={"a": 1})
    (record,) = caplog.records
    assert vars(record)["error_type"] == "builtins.ExceptionGroup, builtins.TimeoutError"
    assert vars(record)["a"] == 1
    assert record.getMessage().startswith("it failed: TimeoutError: xxx")
    assert len(record.getMessage()) < 300
