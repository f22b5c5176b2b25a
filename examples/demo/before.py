"""The example app without the middleware: every request asks the database and the warehouse who it is from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx2
import msgspec
from anyio import to_thread
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .tokens import BearerTokens

Row: TypeAlias = dict[str, Any]


class Database:
    """The four tables, over one client whose connections are kept and shared by all requests.

    Args:
        client: speaks to PostgREST.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def rows(self, table: str, columns: str, **conditions: str) -> list[Row]:
        """Return the rows of a table that meet the conditions, ordered by id."""
        answer = await self._client.get(f"/{table}", params={"select": columns, "order": "id", **conditions})
        answer.raise_for_status()
        found: list[Row] = msgspec.json.decode(answer.content)
        return found


class Warehouse:
    """The zones table, through Google's client.

    Args:
        environ: BIGQUERY_PROJECT and BIGQUERY_ZONES_TABLE; without them nobody has zones.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._table = environ.get("BIGQUERY_ZONES_TABLE")
        if self._table is not None:
            local = "BIGQUERY_EMULATOR_HOST" in environ
            credentials = AnonymousCredentials() if local else None  # type: ignore[no-untyped-call]  # typed in parts
            self._client = bigquery.Client(project=environ["BIGQUERY_PROJECT"], credentials=credentials)

    async def zones(self, codes: list[str]) -> list[Row]:
        """Return the zones of these regions, ordered by id."""
        if self._table is None or not codes:
            return []
        # Google's client blocks.
        return await to_thread.run_sync(self._ask, codes)

    def _ask(self, codes: list[str]) -> list[Row]:
        sql = f"SELECT id, name, region_code FROM `{self._table}` WHERE region_code IN UNNEST(@codes) ORDER BY id"  # noqa: S608 - the table is a setting
        given = bigquery.ArrayQueryParameter("codes", "STRING", codes)
        config = bigquery.QueryJobConfig(query_parameters=[given])
        return [dict(row) for row in self._client.query_and_wait(sql, job_config=config)]


async def load_context(request: Request) -> Row:
    """Ask who is signed in and what they work on.

    Raises:
        HTTPException: nobody is signed in, or somebody who may not be here.
    """
    if not request.user.is_authenticated:
        raise HTTPException(401, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    database: Database = request.state.database
    found = await database.rows(
        "employees", "id,email,full_name,job_title,role,is_active", email=f"eq.{request.user.email}"
    )
    if not found:
        raise HTTPException(403, "This user is not known here")
    employee = found[0]
    if not employee["is_active"]:
        raise HTTPException(403, "This user is not active")
    assignments = await database.rows(
        "assignments", "id,employee_id,slot_id,is_primary,starts_on,ends_on", employee_id=f"eq.{employee['id']}"
    )
    slots = await database.rows("slots", "id,code,name,region_id", id=_among(row["slot_id"] for row in assignments))
    regions = await database.rows("regions", "id,code,name", id=_among(row["region_id"] for row in slots))
    zones = await request.state.warehouse.zones([row["code"] for row in regions])
    return {
        "email": employee["email"].lower(),
        "employee": employee,
        "assignments": assignments,
        "slots": slots,
        "regions": regions,
        "zones": zones,
    }


def _among(ids: Iterable[int]) -> str:
    return f"in.({','.join(map(str, sorted(set(ids))))})"


async def health(request: Request) -> Response:
    """Say that the process serves."""
    return PlainTextResponse("ok")


async def me(request: Request) -> Response:
    """Show who asks."""
    return Response(msgspec.json.encode(await load_context(request)), media_type="application/json")


async def region(request: Request) -> Response:
    """Show one's own zones in a region; other people's regions are closed."""
    context = await load_context(request)
    code = request.path_params["code"]
    if all(each["code"] != code for each in context["regions"]):
        raise HTTPException(403, "This region is not yours")
    zones = [zone for zone in context["zones"] if zone["region_code"] == code]
    return Response(msgspec.json.encode(zones), media_type="application/json")


def create_app(environ: Mapping[str, str] = os.environ) -> Starlette:
    """Build the app from the same environment variables as the one with the middleware."""
    key = environ["SUPABASE_KEY"]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        async with httpx2.AsyncClient(
            base_url=f"{environ['SUPABASE_URL']}/rest/v1",
            headers={"apikey": key, "Accept-Profile": "hr"},
            # As many as the middleware takes by default.
            limits=httpx2.Limits(max_connections=20, max_keepalive_connections=20),
            timeout=httpx2.Timeout(10.0, pool=30.0),
        ) as client:
            yield {"database": Database(client), "warehouse": Warehouse(environ)}

    app = Starlette(
        routes=[Route("/health", health), Route("/me", me), Route("/regions/{code}", region)], lifespan=lifespan
    )
    app.add_middleware(AuthenticationMiddleware, backend=BearerTokens(environ["TOKEN_SECRET"]))
    return app
