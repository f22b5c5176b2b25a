"""Real servers out of packages alone, for the demo and the tests: no Docker, no root, nothing installed by hand."""

from __future__ import annotations

from .cluster import ValkeyCluster
from .postgres import Postgres
from .postgrest import PostgREST
from .process import ServerFailed, ServerProcess
from .programs import Program
from .sentinel import SentinelGroup
from .stack import SupabaseProject, create_roles, start_together
from .standby import Standby
from .supabase import FrontCounts, Keys, SupabaseFront
from .tcp_proxy import TcpProxy
from .valkey import Tls, Valkey

__all__ = [
    "FrontCounts",
    "Keys",
    "PostgREST",
    "Postgres",
    "Program",
    "SentinelGroup",
    "ServerFailed",
    "ServerProcess",
    "Standby",
    "SupabaseFront",
    "SupabaseProject",
    "TcpProxy",
    "Tls",
    "Valkey",
    "ValkeyCluster",
    "create_roles",
    "start_together",
]
