"""Real servers out of packages alone, for the demo and the tests: no Docker, no root, nothing installed by hand."""

from __future__ import annotations

from .postgres import Postgres
from .postgrest import PostgREST
from .process import ServerFailed, ServerProcess
from .stack import SupabaseProject, create_roles, start_together
from .supabase import FrontCounts, Keys, SupabaseFront
from .tcp_proxy import TcpProxy
from .valkey import Valkey

__all__ = [
    "FrontCounts",
    "Keys",
    "PostgREST",
    "Postgres",
    "ServerFailed",
    "ServerProcess",
    "SupabaseFront",
    "SupabaseProject",
    "TcpProxy",
    "Valkey",
    "create_roles",
    "start_together",
]
