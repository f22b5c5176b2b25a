"""The server process of the BigQuery stand-in: its routes, its control endpoints and its faults.

Run as a module, with a port and a file of settings, by `bigquery.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .bigquery_jobs import Service
from .bigquery_sql import Refused, Warehouse


@dataclass
class Fault:
    """What happens to the next requests instead of an answer."""

    times: int
    after: int = 0
    status: int = 503
    body: str = ""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer wrongly."""
        if self.hang:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        response = Response(self.body, self.status, self.headers, self.content_type)
        if self.cut:
            # The server sees the promise broken and drops the connection.
            response.headers["content-length"] = str(len(self.body) + 100)
        await response(scope, receive, send)


class Front:
    """Counts, delays and spoils requests of the API; its own control endpoints stay out of that."""

    def __init__(self, api: ASGIApp, control: ASGIApp) -> None:
        self.requests = 0
        self.delay_ms = 0.0
        self.fault: Fault | None = None
        self._api = api
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, after the delay, as the API or as the fault that is due."""
        if scope["type"] == "lifespan" or scope["path"].startswith("/control/"):
            await self._control(scope, receive, send)
            return
        self.requests += 1
        await asyncio.sleep(self.delay_ms / 1000)
        await (self._due_fault() or self._api)(scope, receive, send)

    def _due_fault(self) -> Fault | None:
        fault = self.fault
        if fault is None or fault.times <= 0:
            return None
        if fault.after > 0:
            fault.after -= 1
            return None
        fault.times -= 1
        return fault


def application(settings: Mapping[str, Any]) -> ASGIApp:
    """Build the server of these tables."""
    warehouse = Warehouse(settings["location"])
    for name, rows in settings["tables"].items():
        warehouse.put(name, rows)
    service = Service(warehouse, settings["location"], settings["page_rows"])
    base = "/bigquery/v2/projects/{project}"
    routes = [
        Route(f"{base}/queries", service.query, methods=["POST"]),
        Route(f"{base}/queries/{{job}}", service.results),
        Route(f"{base}/jobs", service.insert, methods=["POST"]),
        Route(f"{base}/jobs/{{job}}", service.job),
        Route(f"{base}/jobs/{{job}}/cancel", service.cancel, methods=["POST"]),
    ]
    return _controlled(Starlette(routes=routes, exception_handlers={Refused: _refused}), service)


def _controlled(api: ASGIApp, service: Service) -> Front:
    async def state(request: Request) -> Response:
        return JSONResponse({"queries": service.queries, "requests": front.requests, "last_query": service.last_query})

    async def change(request: Request) -> Response:
        body = await request.json()
        front.fault = Fault(**body["fault"]) if body.get("fault") else None
        front.delay_ms = body.get("delay_ms", 0.0)
        service.query_ms = body.get("query_ms", 0.0)
        return JSONResponse({})

    async def put(request: Request) -> Response:
        service.warehouse.put(request.path_params["table"], await request.json())
        return JSONResponse({})

    control = Starlette(
        routes=[
            Route("/control/state", state),
            Route("/control/behaviour", change, methods=["PUT"]),
            Route("/control/tables/{table}", put, methods=["PUT"]),
        ]
    )
    front = Front(api, control)
    return front


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 - it is registered for nothing else
    body = {"code": error.status, "message": error.message, "errors": [error.proto]}
    return JSONResponse({"error": body}, error.status)


def main() -> None:
    """Serve on the port given, from the file given."""
    port, settings = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    uvicorn.run(
        application(settings), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1, ws="none"
    )


if __name__ == "__main__":
    main()
