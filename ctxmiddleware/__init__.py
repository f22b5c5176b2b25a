"""ctxmiddleware: who is this user and what may they see, on every request."""

from .accessors import (
    NotAuthenticated,
    NotPermitted,
    current_user_context,
    get_user_context,
    user_context_from_scope,
)
from .admin.asking import any_of
from .admin.guard import AdminGuard, BearerToken
from .admin.rule import ContextRule, role_in
from .cache.policy import CachePolicy
from .cache.redis.options import RedisOptions
from .context_types.schema import JsonValue
from .errors import (
    ConfigurationError,
    ContextError,
    InvalidationFailed,
    MiddlewareMissing,
    MissingExtra,
    NotOpen,
    SourceError,
    SourceMisconfigured,
    SourceUnavailable,
)
from .identity.base import Identify
from .identity.credential import BadCredential
from .identity.first_of import first_of
from .identity.header import TrustedHeader
from .identity.jwt.bearer import BearerJWT
from .identity.jwt.published import FetchTimes
from .identity.scope_user import ScopeUser
from .middleware import UserContextMiddleware
from .model import Assignment, Employee, Region, Slot, UserContext, Zone
from .plugin import ContextPlugin
from .principal import Identity
from .refusal import OnRefusal
from .reports import Confirmed, InvalidationReport, Resolution, Silent, WarmReport
from .routing import public
from .secret import Secret
from .sources.base import BatchSource, ContextSource, Loaded
from .sources.pool import PoolOptions
from .sources.supabase import SupabaseSource
from .stats import Stats
from .zones.base import ZoneSnapshot, ZoneSource
from .zones.bigquery import BigQueryZones

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # the middleware and the plugin
    "UserContextMiddleware",
    "ContextPlugin",
    "CachePolicy",
    "RedisOptions",
    # reaching the context
    "get_user_context",
    "user_context_from_scope",
    "current_user_context",
    "NotAuthenticated",
    "NotPermitted",
    # the model
    "UserContext",
    "Employee",
    "Assignment",
    "Slot",
    "Region",
    "Zone",
    "JsonValue",
    # who asks
    "Identity",
    "Identify",
    "ScopeUser",
    "BearerJWT",
    "FetchTimes",
    "TrustedHeader",
    "first_of",
    "BadCredential",
    "OnRefusal",
    "public",
    # where contexts come from
    "BatchSource",
    "ContextSource",
    "Loaded",
    "SupabaseSource",
    "PoolOptions",
    # where zones come from
    "ZoneSource",
    "ZoneSnapshot",
    "BigQueryZones",
    # the admin
    "AdminGuard",
    "BearerToken",
    "ContextRule",
    "role_in",
    "any_of",
    # answers
    "Resolution",
    "InvalidationReport",
    "Confirmed",
    "Silent",
    "WarmReport",
    "Stats",
    # errors
    "ContextError",
    "ConfigurationError",
    "MissingExtra",
    "NotOpen",
    "MiddlewareMissing",
    "SourceError",
    "SourceMisconfigured",
    "SourceUnavailable",
    "InvalidationFailed",
    # secrets
    "Secret",
]
