"""The settings an application gives by environment variables, and the rule by which each is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Final, NamedTuple, cast

from . import readers
from .cache.policy import CachePolicy
from .cache.redis.options import RedisOptions
from .cache.redis.seal import KEY_FORM
from .option import declared
from .project import Project
from .secret import Secret
from .setting import Rule, setting
from .sources.arguments import REPLICA_LAG
from .sources.pool import PoolOptions
from .zones.arguments import MAX_BYTES, PROJECT, TABLE, ZONES_TTL

ADMIN_TOKEN: Final = "CTX_ADMIN_TOKEN"  # noqa: S105 - the name of a variable, not what it holds
LOG_KEY: Final = "CTX_LOG_KEY"

_PROJECT: Final = "an http or https URL without a user, a password or a path other than /rest/v1"
_HTTP: Final = "an http or https URL without a user or password"


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
    redis_options: RedisOptions = field(default_factory=RedisOptions, metadata={"prefix": "CTX_REDIS_"})
    pool: PoolOptions = field(default_factory=PoolOptions, metadata={"prefix": "DB_"})
    replica_lag: float = setting(10.0, Rule.of("CTX_REPLICA_LAG", REPLICA_LAG))
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
    bigquery_max_bytes: int | None = setting(None, Rule.of("BIGQUERY_MAX_BYTES", MAX_BYTES))
    zones_ttl: float = setting(86400.0, Rule.of("CTX_ZONES_TTL", ZONES_TTL))
    policy: CachePolicy = field(default_factory=CachePolicy, metadata={"prefix": "CTX_"})
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


class Variable(NamedTuple):
    """One variable of the environment.

    Args:
        rule: how it is read.
        default: the value without it.
        name: the field that it sets.
        group: the field of Settings that holds the options with that field; empty for a field of Settings itself.
    """

    rule: Rule
    default: object
    name: str
    group: str = ""


@cache
def variables() -> tuple[Variable, ...]:
    """Return every variable, in the order of the documentation."""
    found = []
    for each in fields(Settings):
        if each.default_factory is MISSING:
            found.append(Variable(each.metadata["rule"], each.default, each.name))
            continue
        for name, option, default in declared(cast("Any", each.default_factory)):
            if option.variable is not None:
                variable = option.variable or f"{each.metadata['prefix']}{name.upper()}"
                found.append(Variable(Rule.of(variable, option), default, name, each.name))
    return tuple(found)


def settings_of(values: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return settings.

    Args:
        values: the values of fields that are not the default, by group and name.
    """
    groups = {each.name: each.default_factory for each in fields(Settings) if each.default_factory is not MISSING}
    return Settings(**values.get("", {}), **{group: make(**values.get(group, {})) for group, make in groups.items()})


def rules() -> tuple[tuple[Rule, object], ...]:
    """Return every variable's rule with its default, in the order of the documentation."""
    return tuple((each.rule, each.default) for each in variables())
