"""The settings an application gives by environment variables, and the rule by which each is read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, cast

from . import readers
from .cache.policy import LONGEST, LONGEST_SETTLE
from .cache.redis.seal import KEY_FORM
from .project import Project
from .secret import Secret
from .setting import Rule, setting
from .zones.arguments import MIN_MAX_BYTES, PROJECT, TABLE

ADMIN_TOKEN: Final = "CTX_ADMIN_TOKEN"  # noqa: S105 - the name of a variable, not what it holds
LOG_KEY: Final = "CTX_LOG_KEY"


_SECONDS = "a number of seconds over 0"
_SECONDS_KEPT = f"a number of seconds over 0, {LONGEST:.0f} at most"
# For so long Redis remembers when somebody was invalidated.
_SECONDS_LAG = "a number of seconds from 0 to 3600"
_SECONDS_STALE = f"a number of seconds from 0 to {LONGEST:.0f}"
_SHARE = "a share over 0, 1 at most"
_SHARE_LESS = "a share from 0 to 0.9"
_COUNT = "a whole number, 1 or more"
_PROJECT = "an http or https URL without a user, a password or a path other than /rest/v1"
_HTTP = "an http or https URL without a user or password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the environment says, each field from the variable its rule names; None or empty where unset."""

    supabase_url: Project | None = setting(
        None, Rule("SUPABASE_URL", _PROJECT, readers.project, "The project's address.")
    )
    supabase_key: Secret | None = setting(
        None,
        Rule(
            "SUPABASE_KEY",
            "an sb_secret_ key or the legacy service_role key",
            readers.secret,
            "The server's key.",
            secret=True,
        ),
    )
    supabase_schema: str = setting(
        "hr", Rule("SUPABASE_SCHEMA", "the name of an exposed schema", readers.schema, "Where the tables are.")
    )
    supabase_read_url: Project | None = setting(
        None, Rule("SUPABASE_READ_URL", _PROJECT, readers.project, "A read replica, asked by GET only.")
    )
    supabase_jwt_secret: Secret | None = setting(
        None,
        Rule(
            "SUPABASE_JWT_SECRET",
            f"the project's JWT secret, {readers.MIN_SECRET_BYTES} bytes or more",
            readers.shared_secret,
            "Verifies users' tokens that are signed with HS256.",
            secret=True,
        ),
    )
    supabase_jwks_url: str | None = setting(
        None, Rule("SUPABASE_JWKS_URL", _HTTP, readers.web_url, "Where the keys of users' tokens are published.")
    )
    jwt_issuer: str | None = setting(
        None,
        Rule(
            "CTX_JWT_ISSUER",
            "a name without spaces",
            readers.like(r"\S+"),
            "Who issues users' tokens (iss); without it SUPABASE_URL with /auth/v1.",
        ),
    )
    jwt_audience: str = setting(
        "authenticated",
        Rule("CTX_JWT_AUDIENCE", "a name without spaces", readers.like(r"\S+"), "Whom users' tokens are for (aud)."),
    )
    redis_url: Secret | None = setting(
        None,
        Rule(
            "REDIS_URL",
            "a redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL",
            readers.secret_url,
            "The tier the fleet shares; without it everything is in memory.",
            secret=True,
        ),
    )
    redis_replicas: int = setting(
        0,
        Rule(
            "CTX_REDIS_REPLICAS",
            "a whole number",
            readers.whole(0),
            "Replicas of Redis that must have an invalidation before it is done (WAIT).",
        ),
    )
    db_max_connections: int = setting(
        20, Rule("DB_MAX_CONNECTIONS", _COUNT, readers.whole(1), "Connections to the database's API, per event loop.")
    )
    db_pool_timeout: float = setting(
        30.0, Rule("DB_POOL_TIMEOUT", _SECONDS, readers.number(over=0), "Seconds to wait for a free one of them.")
    )
    db_pool_recycle: float = setting(
        3600.0, Rule("DB_POOL_RECYCLE", _SECONDS, readers.number(over=0), "Seconds after which none of them lives on.")
    )
    bigquery_project: str | None = setting(
        None,
        Rule("BIGQUERY_PROJECT", "a project id", readers.like(PROJECT), "The project that pays for the zones query."),
    )
    bigquery_zones_table: str | None = setting(
        None,
        Rule(
            "BIGQUERY_ZONES_TABLE",
            "dataset.table or project.dataset.table",
            readers.like(TABLE),
            "The table of zones: columns id, name, region_code.",
        ),
    )
    bigquery_location: str | None = setting(
        None,
        Rule("BIGQUERY_LOCATION", "a location such as EU", readers.like(r"[A-Za-z0-9\-]+"), "Where that table is."),
    )
    bigquery_max_bytes: int | None = setting(
        None,
        Rule(
            "BIGQUERY_MAX_BYTES",
            f"a whole number, {MIN_MAX_BYTES} or more",
            readers.whole(MIN_MAX_BYTES),
            "Bytes one zones query may bill at most.",
        ),
    )
    ttl: float = setting(
        900.0, Rule("CTX_TTL", _SECONDS_KEPT, readers.number(over=0, most=LONGEST), "Seconds a context is served.")
    )
    negative_ttl: float = setting(
        60.0,
        Rule(
            "CTX_NEGATIVE_TTL",
            _SECONDS_KEPT,
            readers.number(over=0, most=LONGEST),
            "Seconds an unknown user is remembered.",
        ),
    )
    jitter: float = setting(
        0.1,
        Rule(
            "CTX_JITTER",
            _SHARE_LESS,
            readers.number(least=0, most=0.9),
            "Share of these times that each context loses at random, so that not all expire at once.",
        ),
    )
    refresh_ahead: float = setting(
        0.8,
        Rule(
            "CTX_REFRESH_AHEAD",
            _SHARE,
            readers.number(over=0, most=1),
            "Share of its time after which a context that is asked for is refreshed behind the answer; 1 for never.",
        ),
    )
    stale_for: float = setting(
        300.0,
        Rule(
            "CTX_STALE_FOR",
            _SECONDS_STALE,
            readers.number(least=0, most=LONGEST),
            "Seconds past its time that a context is served while the database is down.",
        ),
    )
    untrusted_ttl: float = setting(
        5.0,
        Rule(
            "CTX_UNTRUSTED_TTL",
            _SECONDS_KEPT,
            readers.number(over=0, most=LONGEST),
            "Seconds memory is trusted without having asked Redis.",
        ),
    )
    stale_untrusted_for: float | None = setting(
        None,
        Rule(
            "CTX_STALE_UNTRUSTED_FOR",
            _SECONDS_STALE,
            readers.number(least=0, most=LONGEST),
            "Seconds past that trust for which it is served while Redis and database are down; else CTX_STALE_FOR.",
        ),
    )
    settle: float = setting(
        5.0,
        Rule(
            "CTX_SETTLE",
            f"a number of seconds from 0 to {LONGEST_SETTLE:.0f}",
            readers.number(least=0, most=LONGEST_SETTLE),
            "Seconds after an invalidation in which its transaction may still commit; 0 for never.",
        ),
    )
    replica_lag: float = setting(
        10.0,
        Rule(
            "CTX_REPLICA_LAG",
            _SECONDS_LAG,
            readers.number(least=0, most=3600),
            "Seconds after an invalidation in which the replica is not asked.",
        ),
    )
    soft_timeout: float = setting(
        0.5,
        Rule(
            "CTX_SOFT_TIMEOUT",
            _SECONDS_KEPT,
            readers.number(over=0, most=LONGEST),
            "Seconds a request waits for a slow database where a context past its time may stand in.",
        ),
    )
    load_timeout: float = setting(
        30.0,
        Rule(
            "CTX_LOAD_TIMEOUT",
            _SECONDS_KEPT,
            readers.number(over=0, most=LONGEST),
            "Seconds after which a load is given up.",
        ),
    )
    max_loads: int = setting(
        64, Rule("CTX_MAX_LOADS", _COUNT, readers.whole(1), "Calls of the source under way at a time, per event loop.")
    )
    max_users: int = setting(100_000, Rule("CTX_MAX_USERS", _COUNT, readers.whole(1), "Contexts kept in memory."))
    max_unknown: int = setting(
        10_000, Rule("CTX_MAX_UNKNOWN", _COUNT, readers.whole(1), "Unknown users remembered in memory, beside those.")
    )
    max_bytes: int = setting(
        268_435_456, Rule("CTX_MAX_BYTES", _COUNT, readers.whole(1), "Bytes of contexts kept in memory.")
    )
    warm_users: int = setting(
        10_000,
        Rule(
            "CTX_WARM_USERS",
            "a whole number",
            readers.whole(0),
            "Contexts taken from Redis into memory at the start, of those asked for last.",
        ),
    )
    zones_ttl: float = setting(
        86400.0, Rule("CTX_ZONES_TTL", _SECONDS, readers.number(over=0), "Seconds after which zones are read again.")
    )
    admin_token: Secret | None = setting(
        None,
        Rule(
            ADMIN_TOKEN,
            f"{readers.MIN_TOKEN_LENGTH} or more printable ASCII characters without spaces",
            readers.token,
            "Opens the admin; without it the admin is closed.",
            secret=True,
        ),
    )
    log_key: Secret | None = setting(
        None,
        Rule(
            LOG_KEY,
            f"{readers.MIN_TOKEN_LENGTH} or more printable ASCII characters without spaces",
            readers.token,
            "Names users in logs by a keyed hash, as `ctxmiddleware hash` does; without it each process makes one up.",
            secret=True,
        ),
    )
    namespace: str | None = setting(
        None,
        Rule(
            "CTX_NAMESPACE",
            readers.NAME_FORM,
            readers.name,
            "Keeps the keys of this deployment in Redis apart from those of others that share it.",
        ),
    )
    encryption_keys: tuple[Secret, ...] = setting(
        (),
        Rule(
            "CTX_ENCRYPTION_KEYS",
            f"keys with commas between them, no two alike, each {KEY_FORM}",
            readers.keys,
            "Seal the values in Redis: the first one seals, each of them opens.",
            secret=True,
        ),
    )


def rules() -> tuple[tuple[Rule, object], ...]:
    """Return every variable's rule with its default, in the order of the documentation."""
    return tuple((cast("Rule", each.metadata["rule"]), each.default) for each in fields(Settings))
