"""Applications as users write them, over real servers, each with a plugin made from the environment's variables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import httpx2
import pytest
from asgi_lifespan import LifespanManager
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from ctxmiddleware import ContextPlugin, UserContext, UserContextMiddleware, get_user_context
from ctxmiddleware.plugin_options import arguments_from_env
from examples.servers import Postgres, SupabaseFront, SupabaseProject
from examples.servers.bigquery import BigQueryStandIn
from tests.cache.rig import PATIENT
from tests.waiting import eventually_async

ADMIN_TOKEN = "an-admin-token-of-the-tests"
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
ZONES = [
    {"id": "z1", "name": "Harbour", "region_code": "NORTH"},
    {"id": "z2", "name": "Old Town", "region_code": "NORTH"},
    {"id": "z3", "name": "Airport", "region_code": "SOUTH"},
]
ROWS = """
insert into hr.regions values (1, 'NORTH', 'North'), (2, 'SOUTH', 'South');
insert into hr.slots values (1, 'N1', 'North one', 1), (2, 'S1', 'South one', 2);
insert into hr.employees values (1, 'Ada@Example.com', 'Ada', 'Lead', 'admin', true),
  (2, 'bob@example.com', 'Bob', null, 'rep', true), (3, 'gone@example.com', 'Gone', null, 'rep', false);
insert into hr.assignments values (1, 1, 1, true, '2024-01-01', null), (2, 2, 2, true, '2024-01-01', '2024-12-31');
"""

Environ: TypeAlias = dict[str, str]
Serve: TypeAlias = Callable[[Environ], AbstractAsyncContextManager[httpx2.AsyncClient]]


class _Person(BaseUser):
    def __init__(self, email: str) -> None:
        self.email = email

    @property
    def is_authenticated(self) -> bool:
        return True


class _ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        email = conn.headers.get("x-user")
        return None if email is None else (AuthCredentials(), _Person(email))


def _shown(context: UserContext) -> JSONResponse:
    return JSONResponse(
        {
            "email": context.email,
            "title": context.employee.job_title,
            "regions": [region.code for region in context.regions],
            "zones": [zone.name for zone in context.zones],
        }
    )


async def _me(request: Request) -> JSONResponse:
    return _shown(get_user_context(request))


def make_app(plugin: ContextPlugin[UserContext], *, required: bool = False) -> Starlette:
    """Return an application whose users are who the header X-User says."""
    app = Starlette(routes=[Route("/me", _me), Mount("/api/admin/cache", app=plugin.admin)])
    app.add_middleware(UserContextMiddleware, plugin=plugin, required=required)
    app.add_middleware(AuthenticationMiddleware, backend=_ByHeader())
    return app


def plugin_of(environ: Environ) -> ContextPlugin[UserContext]:
    """Return a plugin as the variables describe it, which waits for Redis for as long as a busy machine takes."""
    return ContextPlugin(**arguments_from_env(environ) | {"redis_options": PATIENT})


@asynccontextmanager
async def serve(environ: Environ) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve an application of its own, as one more process of a fleet would, and return a client of it."""
    plugin = plugin_of(environ)
    app = make_app(plugin, required=True)
    async with LifespanManager(app, startup_timeout=60, shutdown_timeout=60) as manager:
        redis = plugin._assembly.redis
        if redis is not None:
            await eventually_async(redis.is_heard)
        if "BIGQUERY_PROJECT" in environ:
            await plugin.zones_loaded()
        transport = httpx2.ASGITransport(app=manager.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
            yield client


@pytest.fixture(scope="session")
def project(postgres: Postgres) -> Iterator[SupabaseProject]:
    """A project with three people."""
    with SupabaseProject.start(postgres, database="whole_stack") as running:
        running.execute(ROWS)
        yield running


@pytest.fixture(scope="session")
def lagging_replica(postgres: Postgres, project: SupabaseProject) -> Iterator[SupabaseFront]:
    """A read replica of that project that never catches up with what is changed there."""
    with SupabaseProject.start(postgres, database="whole_stack_replica", keys=project.keys) as replica:
        replica.execute(ROWS)
        with replica.front("16", read_only=True) as running:
            yield running


@pytest.fixture(scope="session")
def running_front(project: SupabaseProject) -> Iterator[SupabaseFront]:
    """That project's front."""
    with project.front("16") as running:
        yield running


@pytest.fixture(scope="session")
def zones_server() -> Iterator[BigQueryStandIn]:
    """A warehouse with three zones over two regions."""
    with BigQueryStandIn.start({"geo.zones": ZONES}) as running:
        yield running


@pytest.fixture
def environ(
    front: SupabaseFront, redis_url: str, zones_server: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> Environ:
    """The variables of an installation with everything in it."""
    # Read by Google's own client, not by us.
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", zones_server.url)
    zones_server.behave()
    return {
        "SUPABASE_URL": front.url,
        "SUPABASE_KEY": front.secret_key,
        "REDIS_URL": redis_url,
        "BIGQUERY_PROJECT": "tests",
        "BIGQUERY_ZONES_TABLE": "geo.zones",
        "CTX_ADMIN_TOKEN": ADMIN_TOKEN,
        "CTX_UNTRUSTED_TTL": "60",
    }
