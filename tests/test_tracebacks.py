"""No secret leaves with an error: neither in the frames of what is raised nor in those of what is logged."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pytest

import ctxmiddleware
from ctxmiddleware import (
    BearerJWT,
    BearerToken,
    ConfigurationError,
    ContextPlugin,
    InvalidationFailed,
    MissingExtra,
    SupabaseSource,
)
from ctxmiddleware.cache.redis.codec import Codec
from ctxmiddleware.cache.redis.seal import Seal
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.environment import admin_token, from_env, log_key
from ctxmiddleware.plugin_options import arguments_from_env
from ctxmiddleware.pseudonym import Pseudonyms
from ctxmiddleware.remote import AdminClient, AdminRefused
from ctxmiddleware.secret import Secret
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import StaticSource
from ctxmiddleware.tracebacks import LOGGERS, reduced, sheltered
from ctxmiddleware.zones.bigquery import BigQueryZones
from examples.servers import Valkey
from examples.servers.ports import free_port

from .backends import asyncio_only
from .cache.rig import PATIENT
from .people import ADA, plugin_of
from .waiting import eventually_async

HIDDEN: Final = "HUNTER2"
GOOD: Final = {"SUPABASE_URL": "https://p.example", "SUPABASE_KEY": f"sb_secret_{HIDDEN}"}
BAD: Final[dict[str, str]] = {
    "SUPABASE_URL": f"https://user:{HIDDEN}@p.example",
    "SUPABASE_KEY": f"{HIDDEN} {HIDDEN}",
    "REDIS_URL": f"redis://:{HIDDEN}@h:port",
    "CTX_ENCRYPTION_KEYS": HIDDEN,
    "CTX_LOG_KEY": HIDDEN,
    "CTX_ADMIN_TOKEN": HIDDEN,
    "SUPABASE_JWT_SECRET": HIDDEN,
    "SUPABASE_JWKS_URL": f"https://user:{HIDDEN}@p.example/keys",
    "CTX_TTL": "-1",
}


def errors_of(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error with its causes and contexts, suppressed ones included, and the members of groups."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def leaks_of(error: BaseException | None, *, hidden: str = HIDDEN) -> list[str]:
    """Return where an error, or a frame that is not this file's, holds what is to be hidden."""
    found = []
    for one in errors_of(error):
        if hidden in f"{one!r} {one.args} {getattr(one, '__notes__', '')}":
            found.append(f"the text of {type(one).__name__}")
        trace: TracebackType | None = one.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_filename != __file__ and hidden in _shown(trace.tb_frame.f_locals):
                found.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
    return found


def _shown(values: object, depth: int = 1) -> str:
    if isinstance(values, dict):
        return " ".join(f"{name!r}: {_shown(value, depth)}" for name, value in list(values.items()))
    attributes = getattr(values, "__dict__", None) if depth else None
    more = _shown(dict(attributes), depth - 1) if attributes else ""
    return f"{values!r} {more}"


@pytest.mark.parametrize("variable", BAD)
@pytest.mark.parametrize(
    "read", [ContextPlugin.from_env, arguments_from_env, from_env], ids=["plugin", "arguments", "settings"]
)
def test_an_environment_that_is_refused_stays_where_it_was(read: Callable[..., object], variable: str) -> None:
    """Not only the variable that is wrong: the whole environment was in the frame."""
    with pytest.raises(ConfigurationError) as caught:
        read({**GOOD, "CTX_LOG_KEY": f"{HIDDEN}-and-more", "OTHER": HIDDEN, "CTX_JITTER": "x", variable: BAD[variable]})
    assert leaks_of(caught.value) == []


def _plugin(**given: Any) -> object:
    return ContextPlugin(source=StaticSource({}), namespace="n", **given)


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: _plugin(redis=f"redis://:{HIDDEN}@h:port"),
        lambda: _plugin(redis=f"redis+sentinel://:{HIDDEN}@h/"),
        lambda: _plugin(redis=f"redis://:{HIDDEN}@h?nonsense={HIDDEN}"),
        lambda: _plugin(redis=f"redis://:{HIDDEN}@h", encryption_keys=[HIDDEN]),
        lambda: _plugin(redis=f"redis://:{HIDDEN}@h", log_key=HIDDEN, zones_ttl=-1),
        lambda: BearerToken(HIDDEN),
        lambda: BearerJWT(secret=HIDDEN),
        lambda: BearerJWT(f"https://user:{HIDDEN}@p.example/keys", secret=HIDDEN * 10),
        lambda: SupabaseSource(f"https://user:{HIDDEN}@p.example", HIDDEN),
        lambda: SupabaseSource("nowhere", f"sb_secret_{HIDDEN}", read_url=f"https://user:{HIDDEN}@p.example"),
        lambda: Seal([Secret(HIDDEN)]),
        lambda: AdminClient(f"http://user:{HIDDEN}@h", Secret("a-token-of-the-admin")),
        lambda: RedisTier(f"redis://:{HIDDEN}@h:port", codec=Codec(str), namespace="n", counters=Counters()),
        lambda: Pseudonyms(HIDDEN),
        lambda: admin_token({"CTX_ADMIN_TOKEN": HIDDEN}),
        lambda: log_key({"CTX_LOG_KEY": HIDDEN}),
        lambda: BigQueryZones("NO", "nowhere", credentials={"private_key": HIDDEN}),  # type: ignore[arg-type]  # refused
    ],
    ids=[
        "url",
        "sentinels",
        "option",
        "keys",
        "log key",
        "admin",
        "jwt",
        "jwks",
        "source",
        "replica",
        "seal",
        "client",
        "tier",
        "pseudonyms",
        "variable of the admin",
        "variable of the log",
        "warehouse",
    ],
)
def test_an_argument_that_is_refused_is_in_no_frame(refuse: Callable[[], object]) -> None:
    """Whichever constructor refuses it, in whatever depth."""
    with pytest.raises(ConfigurationError) as caught:
        refuse()
    assert leaks_of(caught.value) == []


def test_an_admin_that_cannot_be_reached_has_no_token_in_a_frame() -> None:
    """The request's headers are in a frame of ours when the connection is refused."""
    with pytest.raises(AdminRefused) as caught:
        AdminClient(f"http://127.0.0.1:{free_port()}", Secret(HIDDEN)).stats()
    assert leaks_of(caught.value) == []


def test_what_is_no_refusal_keeps_its_traceback() -> None:
    """A bug is found by where it happened."""

    @sheltered
    def fail(secret: str) -> None:
        del secret
        raise KeyError("a bug")

    with pytest.raises(KeyError) as caught:
        fail(HIDDEN)
    assert [entry.name for entry in caught.traceback][-1] == "fail"
    assert leaks_of(caught.value) == []


def test_a_missing_extra_keeps_its_cause() -> None:
    """The error names the failed import."""

    @sheltered
    def fail() -> None:
        raise MissingExtra("this", "that") from ImportError("no module")

    with pytest.raises(MissingExtra) as caught:
        fail()
    assert isinstance(caught.value.__cause__, ImportError)


class Notes(logging.Handler):
    """Keeps what was logged, as a collector of errors does."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.records.append(record)


@pytest.fixture
def notes() -> Iterator[Notes]:
    """The log records of the package while the test runs."""
    handler, logger = Notes(), logging.getLogger("ctxmiddleware")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.anyio
@asyncio_only
@pytest.mark.parametrize("login", [f"app:{HIDDEN}", f":{HIDDEN}"], ids=["user", "default"])
async def test_a_refused_login_leaves_no_password_behind(login: str, notes: Notes) -> None:
    """Not with the records of channel and look-ups, and not with the error of an invalidation."""
    users = ["user default on >other ~* &* +@all", "user app on >another ~* &* +@all"]
    with Valkey.start(users=users) as server:
        url = f"redis://{login}@127.0.0.1:{server.port}/0"
        async with plugin_of(redis=url, redis_options=PATIENT) as plugin:
            for number in range(4):
                await plugin.resolve(f"user{number}@example.com")
            with pytest.raises(InvalidationFailed, match="refuses the login") as caught:
                await plugin.invalidate(ADA)
            await eventually_async(lambda: len(logged(notes)) >= 3)
    assert [leak for record in logged(notes) for leak in leaks_of(record.exc_info[1])] == []  # type: ignore[index]  # `logged` has seen to that
    assert leaks_of(caught.value) == []
    # They say all the same what happened, and where in the driver.
    told = [record.exc_info for record in logged(notes) if record.exc_info]
    refused = [each for each in told if type(each[1]).__name__ == "AuthenticationError"]
    assert refused
    assert all("raised in redis." in logging.Formatter().formatException(each) for each in refused)


def logged(notes: Notes) -> list[logging.LogRecord]:
    """Return the records that have an error."""
    return [record for record in notes.records if record.exc_info]


def test_every_logger_of_the_package_is_reduced() -> None:
    """A logger of another name would pass a driver's frames on."""
    root = Path(ctxmiddleware.__file__).parent
    texts = [path.read_text("utf-8") for path in root.rglob("*.py")]
    assert {found for text in texts for found in re.findall(r'getLogger\("([\w.]+)"\)', text)} == set(LOGGERS)


def test_a_reduced_error_keeps_type_text_cause_and_the_frames_that_are_no_drivers() -> None:
    """An application's own code is found in it."""

    def mine() -> None:
        try:
            re.compile("(")
        except re.error as error:
            raise OSError(5, "no luck") from error

    with pytest.raises(OSError, match="no luck") as caught:
        mine()
    copy = reduced(caught.value)
    assert (type(copy), str(copy)) == (OSError, "[Errno 5] no luck")
    assert copy.__traceback__ is not None
    assert copy.__traceback__.tb_next is not None
    assert copy.__traceback__.tb_next.tb_frame.f_code.co_name == "mine"
    cause = copy.__cause__
    assert isinstance(cause, re.error)
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_next is None
    assert any(note.startswith("raised in re") for note in cause.__notes__)
    # The original is what it was: it may be raised on.
    assert caught.value.__cause__ is not cause
    assert not hasattr(caught.value, "__notes__")


def test_a_frame_of_ours_that_a_driver_has_called_is_a_drivers() -> None:
    """It is given the driver's own objects; a frame of the application is kept all the same."""

    def mine(match: object) -> str:
        ours: dict[str, Any] = {"__name__": "ctxmiddleware.imagined"}
        exec("def called_back(match):\n    raise OSError('no luck')", ours)
        return re.sub("x", ours["called_back"], "x")

    with pytest.raises(OSError, match="no luck") as caught:
        re.sub("x", mine, "x")
    copy, names = reduced(caught.value), list[str]()
    trace = copy.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names == ["test_a_frame_of_ours_that_a_driver_has_called_is_a_drivers", "mine"]
    assert copy.__notes__ == ["raised in ctxmiddleware.imagined.called_back, line 2"]


def test_errors_of_every_kind_can_be_reduced() -> None:
    """Groups, circles, and exceptions whose constructor asks for more."""

    class Odd(Exception):
        def __init__(self, code: int, *, more: str) -> None:
            super().__init__(code, more)

    class Stubborn(Exception):
        def __new__(cls, *args: object) -> Stubborn:  # noqa: PYI034 - not every class is made well
            if not args:
                raise TypeError("one argument")
            return super().__new__(cls, *args)

        def __str__(self) -> str:
            return "stubborn"

    group = ExceptionGroup("several", [Odd(1, more="x"), Stubborn(1)])
    group.__cause__ = ValueError("one")
    group.__cause__.__context__ = group
    copy = reduced(group)
    assert isinstance(copy, ExceptionGroup)
    assert str(copy.exceptions[0]) == "(1, 'x')"
    assert "stubborn" in str(copy.exceptions[1])
    assert str(copy.__cause__) == "one"
