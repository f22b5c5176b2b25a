"""The settings of an application in environment variables, and the rule by which each of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from . import readers
from .cache.policy import CachePolicy
from .cache.redis.options import RedisOptions
from .cache.redis.seal import KEY_FORM
from .option import Option
from .project import Project
from .secret import Secret
from .setting import Rule
from .sources.arguments import REPLICA_LAG
from .sources.pool import PoolOptions
from .zones.arguments import MAX_BYTES, PROJECT, TABLE, ZONES_TTL

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ADMIN_TOKEN: Final = "CTX_ADMIN_TOKEN"  # noqa: S105 - the name of a variable, not what it holds
LOG_KEY: Final = "CTX_LOG_KEY"

_PROJECT: Final = "an http or https URL without a user, a password or a path other than /rest/v1"
_HTTP: Final = "an http or https URL without a user or password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of the environment variables, or their defaults."""

    supabase_url: Project | None = Rule("SUPABASE_URL", _PROJECT, readers.project, "The project's address.").default(
        None
    )
    supabase_key: Secret | None = Rule(
        "SUPABASE_KEY",
        "an sb_secret_ key or the legacy service_role key",
        readers.secret,
        "The server's key.",
        secret=True,
    ).default(None)
    supabase_schema: str = Rule(
        "SUPABASE_SCHEMA", "the name of an exposed schema", readers.schema, "Where the tables are."
    ).default("hr")
    supabase_read_url: Project | None = Rule(
        "SUPABASE_READ_URL", _PROJECT, readers.project, "A read replica, queried by GET only."
    ).default(None)
    supabase_jwt_secret: Secret | None = Rule(
        "SUPABASE_JWT_SECRET",
        f"the project's JWT secret, {readers.MIN_SECRET_BYTES} bytes or more",
        readers.shared_secret,
        "Verifies users' tokens that are signed with HS256.",
        secret=True,
    ).default(None)
    supabase_jwks_url: str | None = Rule(
        "SUPABASE_JWKS_URL", _HTTP, readers.web_url, "Where the keys of users' tokens are published."
    ).default(None)
    jwt_issuer: str | None = Rule(
        "CTX_JWT_ISSUER",
        "a name without spaces",
        readers.like(r"\S+"),
        "The issuer of users' tokens (iss); by default SUPABASE_URL with /auth/v1.",
    ).default(None)
    jwt_audience: str = Rule(
        "CTX_JWT_AUDIENCE", "a name without spaces", readers.like(r"\S+"), "The audience of users' tokens (aud)."
    ).default("authenticated")
    redis_url: Secret | None = Rule(
        "REDIS_URL",
        "a redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL",
        readers.secret_url,
        "The tier that the fleet shares; without it everything is in memory.",
        secret=True,
    ).default(None)
    redis_options: RedisOptions = field(default_factory=RedisOptions, metadata={"prefix": "CTX_REDIS_"})
    pool: PoolOptions = field(default_factory=PoolOptions, metadata={"prefix": "DB_"})
    replica_lag: float = REPLICA_LAG.default(10.0)
    bigquery_project: str | None = Rule(
        "BIGQUERY_PROJECT", "a project id", readers.like(PROJECT), "The project that pays for the zones query."
    ).default(None)
    bigquery_zones_table: str | None = Rule(
        "BIGQUERY_ZONES_TABLE",
        "dataset.table or project.dataset.table",
        readers.like(TABLE),
        "The table of zones: columns id, name, region_code.",
    ).default(None)
    bigquery_location: str | None = Rule(
        "BIGQUERY_LOCATION", "a location such as EU", readers.like(r"[A-Za-z0-9\-]+"), "Where that table is."
    ).default(None)
    bigquery_max_bytes: int | None = MAX_BYTES.default(None)
    zones_ttl: float = ZONES_TTL.default(86400.0)
    policy: CachePolicy = field(default_factory=CachePolicy, metadata={"prefix": "CTX_"})
    admin_token: Secret | None = Rule(
        ADMIN_TOKEN,
        f"{readers.MIN_TOKEN_LENGTH} or more printable ASCII characters without spaces",
        readers.token,
        "Opens the admin; without it the admin is closed.",
        secret=True,
    ).default(None)
    log_key: Secret | None = Rule(
        LOG_KEY,
        f"{readers.MIN_TOKEN_LENGTH} or more printable ASCII characters without spaces",
        readers.token,
        "Names users in logs by a keyed hash, as `ctxmiddleware hash` does; without it each process generates one.",
        secret=True,
    ).default(None)
    namespace: str | None = Rule(
        "CTX_NAMESPACE",
        readers.NAME_FORM,
        readers.name,
        "Keeps the keys of this deployment in Redis apart from those of others that share it.",
    ).default(None)
    encryption_keys: tuple[Secret, ...] = Rule(
        "CTX_ENCRYPTION_KEYS",
        f"keys with commas between them, no two alike, each {KEY_FORM}",
        readers.keys,
        "Seal the values in Redis: the first one seals, each of them opens.",
        secret=True,
    ).default(())


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
            found.append(_variable(each))
            continue
        inner = fields(cast("type[DataclassInstance]", each.default_factory))
        options = (option for option in inner if option.metadata["option"].variable is not None)
        found += [_variable(option, each.metadata["prefix"], each.name) for option in options]
    return tuple(found)


def _variable(each: Field[Any], prefix: str = "", group: str = "") -> Variable:
    rule = each.metadata.get("rule")
    if rule is None:
        option: Option = each.metadata["option"]
        rule = Rule.of(option.variable or f"{prefix}{each.name.upper()}", option)
    return Variable(rule, each.default, each.name, group)


def settings_of(values: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return settings with the values of their fields by group and name, and defaults for the rest."""
    groups: dict[str, Any] = {
        each.name: each.default_factory for each in fields(Settings) if each.default_factory is not MISSING
    }
    return Settings(**values.get("", {}), **{group: make(**values.get(group, {})) for group, make in groups.items()})


def rules() -> tuple[tuple[Rule, object], ...]:
    """Return every variable's rule with its default, in the order of the documentation."""
    return tuple((each.rule, each.default) for each in variables())
