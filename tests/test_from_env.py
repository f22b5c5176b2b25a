"""From variables to a plugin: what is built, what is refused, and that nothing is opened."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from ctxmiddleware import BearerJWT, CachePolicy, ConfigurationError, ContextPlugin, Identity, ScopeUser, UserContext
from ctxmiddleware.environment import read
from ctxmiddleware.plugin_options import arguments_from_env
from ctxmiddleware.testing import StaticSource
from ctxmiddleware.wiring import parts_from

from .asgi import ask, http_scope

KEY = base64.b64encode(bytes(range(32))).decode()
SUPABASE = {"SUPABASE_URL": "https://project.example", "SUPABASE_KEY": "sb_secret_example"}


def nobody(scope: object) -> Identity | None:
    """Identify nobody."""
    return None


def test_what_is_needed_is_named() -> None:
    """Without Supabase's variables, and without a source of one's own, both are named at once."""
    with pytest.raises(ConfigurationError) as caught:
        ContextPlugin.from_env({})
    assert caught.value.faults == ("SUPABASE_URL is not set", "SUPABASE_KEY is not set")


def test_one_missing_variable_is_named_alone() -> None:
    """What is there is not complained of."""
    with pytest.raises(ConfigurationError, match=r"^SUPABASE_KEY is not set$"):
        ContextPlugin.from_env({"SUPABASE_URL": "https://project.example"})


def test_a_source_of_one_s_own_needs_no_variables() -> None:
    """With a source given, an empty environment is a working one, all in memory."""
    source: StaticSource[UserContext] = StaticSource({})
    plugin = ContextPlugin.from_env({}, source=source)
    assert isinstance(plugin, ContextPlugin)
    assert plugin.stats().redis is None
    assert plugin.stats().zones is None


@pytest.mark.parametrize("variable", ["SUPABASE_JWT_SECRET", "SUPABASE_JWKS_URL"])
def test_where_a_variable_says_how_tokens_are_verified_they_identify(variable: str) -> None:
    """Unless the application finds out by itself who asks; without such a variable it is the scope's user."""
    environ = {**SUPABASE, variable: "https://project.example/keys/that/are/long"}
    assert isinstance(ContextPlugin.from_env(environ).identify, BearerJWT)
    assert ContextPlugin.from_env(environ, identify=nobody).identify is nobody
    assert isinstance(ContextPlugin.from_env(SUPABASE).identify, ScopeUser)


@pytest.mark.parametrize(
    ("given", "issuer", "audience"),
    [
        ({}, f"{SUPABASE['SUPABASE_URL']}/auth/v1", "authenticated"),
        ({"CTX_JWT_ISSUER": "https://issuer.example", "CTX_JWT_AUDIENCE": "us"}, "https://issuer.example", "us"),
    ],
    ids=["Supabase", "another"],
)
def test_tokens_are_those_of_the_project_and_for_whom_it_signs_in(
    given: dict[str, str], issuer: str, audience: str
) -> None:
    """Unless the environment names another issuer or audience; everybody else's are no good."""
    secret = "a secret of more than 32 bytes, for HS256"
    plugin = ContextPlugin.from_env({**SUPABASE, "SUPABASE_JWT_SECRET": secret, **given})
    claims = {"email": "ada@example.org", "exp": time.time() + 60, "iss": issuer, "aud": audience}

    def asked(**changed: object) -> object:
        token = jwt.encode({"alg": "HS256"}, {**claims, **changed}, OctKey.import_key(secret))
        return plugin.identify({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]})

    assert isinstance(asked(), Identity)
    assert asked(iss=f"{issuer}/") is None
    assert asked(aud="somebody else") is None


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["", "a-token-of-the-admin"])
async def test_a_guard_of_one_s_own_opens_the_admin_besides_the_token(token: str) -> None:
    """The shell keeps its way in; without a token the guard is all there is."""
    source: StaticSource[UserContext] = StaticSource({})
    plugin = ContextPlugin.from_env(
        {"CTX_ADMIN_TOKEN": token}, source=source, admin_guard=lambda connection: "x-key" in connection.headers
    )
    for headers, is_let_in in [
        ([], False),
        ([(b"x-key", b"x")], True),
        ([(b"authorization", b"Bearer a-token-of-the-admin")], bool(token)),
    ]:
        answer = await ask(plugin.admin, {**http_scope("/stats"), "headers": headers})
        assert answer.status == (200 if is_let_in else 401)


def test_a_guard_that_is_none_is_told_with_the_rest() -> None:
    """What it is may be a token, and is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        arguments_from_env({"CTX_TTL": "-1"}, source=StaticSource({}), admin_guard="a-token-of-the-admin")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 2
    assert "a-token" not in str(caught.value)


def test_keys_that_would_not_seal_stop_the_start() -> None:
    """A setting that asks for sealed values is not ignored: the message names it and says how to make a key."""
    with pytest.raises(ConfigurationError, match=r"^CTX_ENCRYPTION_KEYS held .*`openssl rand -base64 32`"):
        ContextPlugin.from_env({**SUPABASE, "CTX_ENCRYPTION_KEYS": f"{KEY},key"})
    assert ContextPlugin.from_env({**SUPABASE, "CTX_ENCRYPTION_KEYS": KEY})


def test_policy_and_bounds_come_from_the_variables() -> None:
    """Each figure of the environment is the figure in force."""
    environ = {
        **SUPABASE,
        "CTX_TTL": "11",
        "CTX_NEGATIVE_TTL": "12",
        "CTX_STALE_FOR": "13",
        "CTX_UNTRUSTED_TTL": "14",
        "CTX_MAX_USERS": "15",
        "CTX_MAX_BYTES": "16",
    }
    policy = parts_from(read(environ), with_source=False)["policy"]
    assert (policy.ttl, policy.negative_ttl, policy.stale_for, policy.untrusted_ttl) == (11, 12, 13, 14)
    memory = ContextPlugin.from_env(environ).stats().memory
    assert (memory.max_users, memory.max_bytes) == (15, 16)


def test_the_faults_of_the_parts_are_told_too() -> None:
    """A key of the wrong kind is refused by the source it is for, at the start."""
    with pytest.raises(ConfigurationError, match="SUPABASE_KEY"):
        ContextPlugin.from_env({**SUPABASE, "SUPABASE_KEY": "sb_publishable_example"})


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h:port", "REDIS_URL: .*not a Redis URL"),
        ("redis://h/notanumber", "REDIS_URL: .*not the number of a database"),
        ("redis://h/1/2", "REDIS_URL: .*not the number of a database"),
        ("redis://h/-1", "REDIS_URL: .*not the number of a database"),
        ("redis://h?decode_responses=true", "REDIS_URL: .*decode_responses"),
        ("unix:///run/redis?db=x", "REDIS_URL: .*not a Redis URL"),
    ],
)
def test_the_faults_of_the_redis_url_name_its_variable(url: str, told: str) -> None:
    """What only the driver knows of a URL is told like the rest; database 0 is not taken for what cannot be read."""
    with pytest.raises(ConfigurationError, match=told):
        ContextPlugin.from_env({**SUPABASE, "REDIS_URL": url})


@pytest.mark.parametrize("url", ["redis://h", "redis://h/", "redis://h/12", "redis://h/%31", "unix:///run/redis?db=3"])
def test_the_forms_of_a_redis_url_are_taken(url: str) -> None:
    """The number of the database may be left out."""
    assert ContextPlugin.from_env({**SUPABASE, "REDIS_URL": url}).stats().redis is not None


def test_all_faults_of_all_parts_are_told_at_once() -> None:
    """One start tells what cannot be read, what is missing, and what the source, Redis and the arguments refuse."""
    environ = {
        "SUPABASE_KEY": "sb_publishable_HUNTER2",
        "SUPABASE_JWT_SECRET": "HUNTER2",
        "SUPABASE_SCHEMA": "h r",
        "REDIS_URL": "redis://:HUNTER2@h:port",
        "DB_MAX_CONNECTIONS": "1_0",
        "BIGQUERY_PROJECT": "p",
        "CTX_TTL": "1e9",
        "CTX_ADMIN_TOKEN": "HUNTER2",
        "CTX_ENCRYPTION_KEYS": "HUNTER2",
    }
    with pytest.raises(ConfigurationError) as caught:
        ContextPlugin.from_env(environ, name="a b")
    told = [
        "SUPABASE_SCHEMA held 'h r'",
        "SUPABASE_JWT_SECRET held a value that is not shown",
        "DB_MAX_CONNECTIONS held '1_0'",
        "CTX_TTL held '1e9'",
        "CTX_ADMIN_TOKEN held a value that is not shown",
        "CTX_ENCRYPTION_KEYS held a value that is not shown",
        "BIGQUERY_PROJECT and BIGQUERY_ZONES_TABLE belong together",
        "name was 'a b'",
        "REDIS_URL: ",
        "SUPABASE_URL is not set",
        "SUPABASE_KEY is a publishable key",
    ]
    assert len(caught.value.faults) == len(told)
    assert all(fault.startswith(begin) for fault, begin in zip(caught.value.faults, told, strict=True))
    assert "HUNTER2" not in str(caught.value)


def test_no_frame_of_an_error_holds_a_secret() -> None:
    """Collectors of errors send the locals of every frame along."""
    environ = {
        "SUPABASE_URL": "sb_secret_HUNTER2",
        "SUPABASE_KEY": "HUNTER2",
        "REDIS_URL": "redis://:HUNTER2@h:port",
        "CTX_ENCRYPTION_KEYS": f"{KEY},HUNTER2",
    }
    with pytest.raises(ConfigurationError) as caught:
        arguments_from_env(environ)
    assert len(caught.value.faults) == 4
    frames = list(caught.traceback)[1:]
    assert frames
    assert [entry.name for entry in frames if "HUNTER2" in repr(entry.frame.f_locals)] == []
    assert caught.value.__context__ is None


def test_a_url_that_cannot_be_read_is_not_called_missing() -> None:
    """It is set; what is wrong with the key beside it is told as well."""
    with pytest.raises(ConfigurationError) as caught:
        ContextPlugin.from_env({"SUPABASE_URL": "project", "SUPABASE_KEY": "sb_publishable_x"})
    assert [fault.split()[0] for fault in caught.value.faults] == ["SUPABASE_URL", "SUPABASE_KEY"]


def test_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building the plugin makes no connection: an application may be imported where nothing runs."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    environ = {
        **SUPABASE,
        "REDIS_URL": "redis://localhost:1",
        "BIGQUERY_PROJECT": "project",
        "BIGQUERY_ZONES_TABLE": "geo.zones",
    }
    stats = ContextPlugin.from_env(environ).stats()
    assert stats.redis is not None
    assert stats.redis.state == "not open"
    assert stats.zones is not None
    assert stats.zones.state == "loading"


def test_a_plugin_never_shows_a_secret() -> None:
    """Whatever a debugger or a log prints of the plugin, its parts and its arguments, no secret is in it."""
    environ = {
        **SUPABASE,
        "SUPABASE_KEY": "sb_secret_hidden",
        "REDIS_URL": "redis://:hidden@localhost",
        "CTX_ADMIN_TOKEN": "hidden-hidden-hidden",
        "CTX_ENCRYPTION_KEYS": KEY,
    }
    plugin = ContextPlugin.from_env(environ)
    parts = parts_from(read(environ), with_source=True)
    shown = f"{plugin!r} {plugin.__dict__} {plugin.admin.__dict__} {parts}"
    assert "hidden" not in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("library", "extra", "environ"),
    [
        ("google", "bigquery", {"BIGQUERY_PROJECT": "p", "BIGQUERY_ZONES_TABLE": "d.t"}),
        ("cryptography", "encryption", {"CTX_ENCRYPTION_KEYS": KEY}),
    ],
    ids=["bigquery", "encryption"],
)
def test_an_extra_that_is_missing_is_told_at_the_start(library: str, extra: str, environ: dict[str, str]) -> None:
    """Where what a variable asks for is not installed the message names the extra, when the variables are read."""
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == sys.argv[1]:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from ctxmiddleware import ContextPlugin, MissingExtra\n"
        "try:\n"
        "    ContextPlugin.from_env(dict(each.split('=', 1) for each in sys.argv[2:]))\n"
        "except MissingExtra as error:\n"
        "    print(error)\n"
    )
    given = [library, *(f"{name}={value}" for name, value in (SUPABASE | environ).items())]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=True, timeout=60)
    assert f"pip install 'ctxmiddleware[{extra}]'" in done.stdout


def test_it_takes_what_the_constructor_takes() -> None:
    """A model of one's own keeps the environment's settings, and an argument that is given stands in for them."""
    source: StaticSource[str] = StaticSource({})
    environ = {"CTX_TTL": "60", "CTX_STALE_FOR": "7", "CTX_ADMIN_TOKEN": "a-token-of-the-admin"}
    plugin = ContextPlugin.from_env(environ, source=source, context_type=str, is_active=bool)
    assert (plugin._assembly.cache.policy.ttl, plugin._assembly.cache.policy.stale_for) == (60.0, 7.0)
    assert plugin.is_active("") is False
    policy = CachePolicy(ttl=5)
    plugin = ContextPlugin.from_env(environ, source=source, context_type=str, policy=policy, copy=False)
    assert plugin._assembly.cache.policy is policy
    with pytest.raises(ConfigurationError, match="context_type Any cannot travel"):
        ContextPlugin.from_env(source=source, context_type=Any, redis="redis://127.0.0.1:1/0")
