"""What the environment may say, and what is told where it says something else."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from ctxmiddleware import BigQueryZones, CachePolicy, ConfigurationError, PoolOptions, RedisOptions, Secret
from ctxmiddleware.environment import from_env, read
from ctxmiddleware.project import Project
from ctxmiddleware.settings import Settings, rules

KEYS = [base64.b64encode(bytes(range(start, start + 32))).decode() for start in (0, 100)]

WRONG = [
    ("SUPABASE_URL", "not a url"),
    ("SUPABASE_URL", "ftp://project.example"),
    ("SUPABASE_URL", "https://"),
    ("SUPABASE_URL", "https://project.example:port"),
    ("SUPABASE_URL", "https://project.example:99999"),
    ("SUPABASE_URL", "https://[::1"),
    ("SUPABASE_URL", "https://pro ject.example"),
    ("SUPABASE_SCHEMA", "hr; drop table"),
    ("SUPABASE_SCHEMA", "h\u00e4r"),
    ("SUPABASE_SCHEMA", "h" * 64),
    ("SUPABASE_READ_URL", "project.example"),
    ("SUPABASE_JWKS_URL", "/keys"),
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "http://localhost:6379"),
    ("SUPABASE_JWT_SECRET", "s" * 31),
    ("CTX_JWT_ISSUER", "a b"),
    ("CTX_JWT_AUDIENCE", "a b"),
    ("CTX_REDIS_REPLICAS", "-1"),
    ("DB_MAX_CONNECTIONS", "0"),
    ("DB_MAX_CONNECTIONS", "2.5"),
    ("DB_MAX_CONNECTIONS", "many"),
    ("DB_MAX_CONNECTIONS", "1_0"),
    ("DB_MAX_CONNECTIONS", "\u0661\u0662"),
    ("DB_MAX_CONNECTIONS", "\uff11"),
    ("DB_POOL_TIMEOUT", "1_0.5"),
    ("DB_POOL_TIMEOUT", "\u0663"),
    ("DB_POOL_TIMEOUT", "1e999"),
    ("DB_POOL_TIMEOUT", "-1"),
    ("DB_POOL_TIMEOUT", "nan"),
    ("DB_POOL_RECYCLE", "inf"),
    ("DB_POOL_RECYCLE", "1h"),
    ("BIGQUERY_PROJECT", "my project"),
    ("BIGQUERY_PROJECT", "MyProject"),
    ("BIGQUERY_ZONES_TABLE", "zones"),
    ("BIGQUERY_ZONES_TABLE", "geo.zones` union all"),
    ("BIGQUERY_ZONES_TABLE", "p.ge-o.zones"),
    ("BIGQUERY_LOCATION", "E U"),
    ("BIGQUERY_MAX_BYTES", "10485759"),
    ("CTX_NAMESPACE", "a b"),
    ("CTX_NAMESPACE", "a/b"),
    ("CTX_NAMESPACE", "n" * 65),
    ("CTX_TTL", "0"),
    ("CTX_TTL", "31536000.5"),
    ("CTX_NEGATIVE_TTL", "31536001"),
    ("CTX_STALE_FOR", "31536001"),
    ("CTX_UNTRUSTED_TTL", "1e300"),
    ("CTX_NEGATIVE_TTL", "0"),
    ("CTX_STALE_FOR", "-0.1"),
    ("CTX_UNTRUSTED_TTL", "0"),
    ("CTX_REPLICA_LAG", "-1"),
    ("CTX_REPLICA_LAG", "3601"),
    ("CTX_JITTER", "1"),
    ("CTX_JITTER", "-0.1"),
    ("CTX_SETTLE", "900.5"),
    ("CTX_WARM_USERS", "-1"),
    ("CTX_REFRESH_AHEAD", "0"),
    ("CTX_REFRESH_AHEAD", "1.01"),
    ("CTX_SOFT_TIMEOUT", "0"),
    ("CTX_LOAD_TIMEOUT", "0"),
    ("CTX_MAX_LOADS", "0"),
    ("CTX_MAX_UNKNOWN", "0"),
    ("CTX_MAX_USERS", "0"),
    ("CTX_MAX_BYTES", "256MB"),
    ("CTX_ZONES_TTL", "0"),
    ("CTX_ADMIN_TOKEN", "short"),
    ("CTX_ADMIN_TOKEN", "a token with spaces in it"),
    ("CTX_ADMIN_TOKEN", "pässword-pässword"),
    ("CTX_ADMIN_TOKEN", "a-token-with\na-line-in-it"),
    ("CTX_ENCRYPTION_KEYS", " , ,"),
    ("CTX_ENCRYPTION_KEYS", "a-word"),
    ("CTX_ENCRYPTION_KEYS", f"{KEYS[0]},{KEYS[1]},a-word"),
    ("CTX_ENCRYPTION_KEYS", f"{KEYS[0]},{KEYS[0]}"),
]

# What people paste into the wrong variable.
PASTED = [
    ("SUPABASE_READ_URL", "postgresql://postgres:HUNTER2@db.project.example:5432/postgres"),
    ("SUPABASE_URL", "https://postgres:HUNTER2@project.example"),
    ("SUPABASE_URL", "sb_secret_HUNTER2"),
    ("SUPABASE_URL", "sb_publishable_HUNTER2"),
    ("SUPABASE_URL", "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiSFVOVEVSMiJ9.HUNTER2"),
    ("SUPABASE_JWKS_URL", "host=db user=postgres password=HUNTER2"),
    ("SUPABASE_SCHEMA", "project.example/?apikey=HUNTER2"),
    ("BIGQUERY_PROJECT", "postgres:HUNTER2@db"),
    ("BIGQUERY_ZONES_TABLE", "-----BEGIN PRIVATE KEY----- HUNTER2"),
    ("DB_MAX_CONNECTIONS", "HUNTER2" * 1000),
    ("CTX_TTL", "redis://:HUNTER2@localhost"),
    ("REDIS_URL", "HUNTER2"),
    ("CTX_ADMIN_TOKEN", "HUNTER2 HUNTER2 HUNTER2"),
    ("CTX_ENCRYPTION_KEYS", f"HUNTER2, {KEYS[0]}"),
]


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set: what is needed is said by the part that needs it."""
    assert from_env({}) == Settings()


def test_the_documented_defaults_are_the_defaults() -> None:
    """The figures that users have read are the figures in force."""
    settings = from_env({})
    assert (settings.pool.max_connections, settings.pool.pool_timeout, settings.pool.recycle) == (20, 30, 3600)
    assert (settings.policy.ttl, settings.policy.negative_ttl, settings.policy.stale_for) == (900, 60, 300)
    assert (settings.policy.untrusted_ttl, settings.replica_lag, settings.zones_ttl) == (5, 10, 86400)
    assert settings.supabase_schema == "hr"


def test_every_variable_reaches_its_setting() -> None:
    """Each variable is read, with its own type, and none is confused with another."""
    environ = {
        "SUPABASE_URL": "https://project.example",
        "SUPABASE_KEY": "sb_secret_x",
        "SUPABASE_SCHEMA": "people",
        "SUPABASE_READ_URL": "https://replica.example",
        "SUPABASE_JWT_SECRET": "s" * 32,
        "SUPABASE_JWKS_URL": "https://project.example/keys",
        "REDIS_URL": "rediss://:password@redis.example:6380/1",
        "CTX_JWT_ISSUER": "https://issuer.example",
        "CTX_JWT_AUDIENCE": "us",
        "CTX_REDIS_REPLICAS": "2",
        "DB_MAX_CONNECTIONS": "7",
        "DB_POOL_TIMEOUT": "1.5",
        "DB_POOL_RECYCLE": "60",
        "BIGQUERY_PROJECT": "project-1",
        "BIGQUERY_ZONES_TABLE": "geo.zones",
        "BIGQUERY_LOCATION": "EU",
        "BIGQUERY_MAX_BYTES": "10485760",
        "CTX_TTL": "10",
        "CTX_NEGATIVE_TTL": "2",
        "CTX_JITTER": "0.2",
        "CTX_REFRESH_AHEAD": "0.7",
        "CTX_STALE_FOR": "0",
        "CTX_UNTRUSTED_TTL": "0.5",
        "CTX_STALE_UNTRUSTED_FOR": "7",
        "CTX_SETTLE": "3",
        "CTX_REPLICA_LAG": "0",
        "CTX_SOFT_TIMEOUT": "0.3",
        "CTX_LOAD_TIMEOUT": "9",
        "CTX_MAX_LOADS": "3",
        "CTX_MAX_USERS": "5",
        "CTX_MAX_UNKNOWN": "4",
        "CTX_MAX_BYTES": "6",
        "CTX_WARM_USERS": "7",
        "CTX_ZONES_TTL": "8",
        "CTX_ADMIN_TOKEN": "0123456789abcdef",
        "CTX_LOG_KEY": "0123456789abcdeg",
        "CTX_NAMESPACE": "staging",
        "CTX_ENCRYPTION_KEYS": f"{KEYS[0]}, {KEYS[1]}",
    }
    assert set(environ) == {rule.variable for rule, _ in rules()}
    assert from_env(environ) == Settings(
        supabase_url=Project("https://project.example"),
        supabase_key=Secret("sb_secret_x"),
        supabase_schema="people",
        supabase_read_url=Project("https://replica.example"),
        supabase_jwt_secret=Secret("s" * 32),
        supabase_jwks_url="https://project.example/keys",
        jwt_issuer="https://issuer.example",
        jwt_audience="us",
        redis_url=Secret("rediss://:password@redis.example:6380/1"),
        redis_options=RedisOptions(replicas=2),
        pool=PoolOptions(max_connections=7, pool_timeout=1.5, recycle=60),
        bigquery_project="project-1",
        bigquery_zones_table="geo.zones",
        bigquery_location="EU",
        bigquery_max_bytes=10_485_760,
        policy=CachePolicy(
            ttl=10,
            negative_ttl=2,
            jitter=0.2,
            refresh_ahead=0.7,
            stale_for=0,
            untrusted_ttl=0.5,
            stale_untrusted_for=7.0,
            settle=3.0,
            soft_timeout=0.3,
            load_timeout=9,
            max_loads=3,
            max_users=5,
            max_unknown=4,
            max_bytes=6,
            warm_users=7,
        ),
        replica_lag=0,
        zones_ttl=8,
        admin_token=Secret("0123456789abcdef"),
        log_key=Secret("0123456789abcdeg"),
        namespace="staging",
        encryption_keys=(Secret(KEYS[0]), Secret(KEYS[1])),
    )


@pytest.mark.parametrize(("variable", "held"), WRONG)
def test_a_wrong_value_names_the_variable_what_it_held_and_what_is_allowed(variable: str, held: str) -> None:
    """An operator can mend it from the message alone; a secret's value is not repeated."""
    with pytest.raises(ConfigurationError) as caught:
        from_env({variable: held})
    (fault,) = [fault for fault in caught.value.faults if fault.startswith(f"{variable} held")]
    rule = next(rule for rule, _ in rules() if rule.variable == variable)
    assert fault.endswith(f"allowed is {rule.allowed}")
    assert (held in fault) is not rule.secret


@pytest.mark.parametrize(("variable", "held"), PASTED)
def test_what_may_be_a_secret_is_not_repeated(variable: str, held: str) -> None:
    """A key or a password in the wrong variable is in no message, and in no frame that a collector of errors keeps."""
    with pytest.raises(ConfigurationError) as caught:
        from_env({variable: held})
    assert f"{variable} held a value that is not shown; allowed is" in str(caught.value)
    assert "HUNTER2" not in str(caught.value)
    assert [entry.name for entry in caught.traceback if "HUNTER2" in repr(entry.frame.f_locals)] == [
        # This test itself.
        caught.traceback[0].name
    ]
    assert caught.value.__context__ is None


@pytest.mark.parametrize("variable", ["CTX_TTL", "CTX_NEGATIVE_TTL", "CTX_STALE_FOR", "CTX_UNTRUSTED_TTL"])
def test_the_longest_time_is_taken(variable: str) -> None:
    """What the rule allows, the policy takes."""
    assert from_env({variable: "31536000"}) != Settings()


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("5.", 5), (".5", 0.5), ("+1.5e1", 15), ("1E-1", 0.1)])
def test_numbers_are_written_as_usual(text: str, value: float) -> None:
    """A decimal point and an exponent are fine."""
    assert from_env({"DB_POOL_TIMEOUT": text}).pool.pool_timeout == value


@pytest.mark.parametrize(
    ("project", "table"),
    [
        ("p", "geo.zones"),
        ("example.com:p-1", "example.com:p-1.geo.zones"),
        ("p", "p.geo_2.sales zones-2026"),
        ("P", "geo.zones"),
        ("p_1", "geo.zones"),
        ("p.q", "geo.zones"),
        ("p", "zones"),
        ("p", "a.b.c.d"),
        ("p", "p.ge-o.zones"),
    ],
)
def test_the_warehouse_s_names_are_read_as_its_source_reads_them(project: str, table: str) -> None:
    """What the settings refuse the source would refuse, and what they take it takes."""

    def is_taken(build: Callable[[], object]) -> bool:
        try:
            build()
        except ConfigurationError:
            return False
        return True

    environ = {"BIGQUERY_PROJECT": project, "BIGQUERY_ZONES_TABLE": table}
    assert is_taken(lambda: from_env(environ)) is is_taken(lambda: BigQueryZones(project, table))


def test_a_wrong_variable_is_not_called_missing() -> None:
    """One that is set and cannot be read is told once, for what it is."""
    environ = {
        "BIGQUERY_PROJECT": "MyProject",
        "BIGQUERY_ZONES_TABLE": "geo.zones",
        "SUPABASE_URL": "x",
        "SUPABASE_READ_URL": "https://replica.example",
    }
    with pytest.raises(ConfigurationError) as caught:
        from_env(environ)
    assert [fault.split()[0] for fault in caught.value.faults] == ["SUPABASE_URL", "BIGQUERY_PROJECT"]


@pytest.mark.parametrize("variable", [rule.variable for rule, _ in rules()])
def test_an_empty_or_blank_variable_is_unset(variable: str) -> None:
    """Deployment files set what they have no value for to an empty string."""
    assert from_env({variable: ""}) == from_env({variable: " \t"}) == Settings()


def test_white_space_around_a_value_does_not_matter() -> None:
    """A trailing newline of a secrets file is not part of the secret."""
    assert from_env({"CTX_ADMIN_TOKEN": "0123456789abcdef\n"}).admin_token == Secret("0123456789abcdef")


def test_all_faults_are_told_at_once() -> None:
    """One start shows everything that has to be mended."""
    with pytest.raises(ConfigurationError) as caught:
        from_env({"CTX_TTL": "x", "REDIS_URL": "y", "BIGQUERY_PROJECT": "p", "SUPABASE_READ_URL": "https://r.example"})
    message = str(caught.value)
    assert all(name in message for name in ("CTX_TTL", "REDIS_URL", "BIGQUERY_ZONES_TABLE", "SUPABASE_URL"))
    assert message.startswith("4 faults")


def test_no_secret_shows_itself() -> None:
    """Settings may be printed whole: a key, a token or a password in a URL is not in them."""
    secrets = {
        "SUPABASE_KEY": "sb_secret_hidden",
        "SUPABASE_JWT_SECRET": "hidden-jwt" * 4,
        "REDIS_URL": "redis://:hidden-password@localhost",
        "CTX_ADMIN_TOKEN": "hidden-admin-token",
        "CTX_LOG_KEY": "hidden-key-for-logs",
        "CTX_ENCRYPTION_KEYS": base64.b64encode(b"hidden" + bytes(range(26))).decode(),
    }
    assert {rule.variable for rule, _ in rules() if rule.secret} == set(secrets)
    shown = repr(from_env(secrets))
    assert "hidden" not in shown.lower()
    assert secrets["CTX_ENCRYPTION_KEYS"] not in shown


def test_a_variable_that_nothing_reads_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt one would be silently without effect; the nearest one is named."""
    assert read({"CTX_TTLL": "3", "CTX_SOMETHING_OF_OURS": "x", "CTXX": "1"}).faults == ()
    assert [record.message for record in caplog.records] == [
        "CTX_SOMETHING_OF_OURS is no variable of ctxmiddleware and has no effect",
        "CTX_TTLL is no variable of ctxmiddleware and has no effect: did you mean CTX_TTL?",
    ]
