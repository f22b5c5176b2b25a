"""How the BigQuery stand-in takes queries as jobs and gives their rows out in pages."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .bigquery_sql import Refused, Result, Warehouse, parameters

_LEAST_BILLED = 10_485_760
_WAIT_MS = 10_000


@dataclass
class Job:
    """One query, running or done."""

    project: str
    id: str
    sql: str
    location: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    result: Result | None = None
    error: Refused | None = None

    @property
    def reference(self) -> dict[str, str]:
        """What names the job."""
        return {"projectId": self.project, "jobId": self.id, "location": self.location}

    def resource(self) -> dict[str, Any]:
        """Return the job as `jobs.get` describes it."""
        status: dict[str, Any] = {"state": "DONE" if self.done.is_set() else "RUNNING"}
        if self.error:
            status |= {"errorResult": self.error.proto, "errors": [self.error.proto]}
        destination = {"projectId": self.project, "datasetId": "_results", "tableId": self.id}
        return {
            "kind": "bigquery#job",
            "id": f"{self.project}:{self.location}.{self.id}",
            "jobReference": self.reference,
            "configuration": {"jobType": "QUERY", "query": {"query": self.sql, "destinationTable": destination}},
            "status": status,
            "statistics": {"query": {"statementType": "SELECT"}},
        }

    def page(self, start: int, size: int) -> dict[str, Any]:
        """Return the rows from `start` on, or word that the query still runs."""
        if self.error:
            raise self.error
        if self.result is None:
            return {"jobReference": self.reference, "jobComplete": False}
        end = start + size
        more = {"pageToken": str(end)} if end < len(self.result.rows) else {}
        return {
            "jobReference": self.reference,
            "jobComplete": True,
            "schema": {"fields": self.result.fields},
            "totalRows": str(len(self.result.rows)),
            "rows": self.result.rows[start:end],
            "totalBytesProcessed": str(_LEAST_BILLED),
            "cacheHit": False,
            **more,
        }


class Service:
    """The endpoints that Google's client calls for a query."""

    def __init__(self, warehouse: Warehouse, location: str, page_rows: int) -> None:
        self.warehouse = warehouse
        self.queries = 0
        self.query_ms = 0.0
        self.last_query: Mapping[str, Any] = {}
        self._location = location
        self._page_rows = page_rows
        self._jobs: dict[str, Job] = {}
        self._ids = (f"job_{number}" for number in itertools.count(1))
        self._running: set[asyncio.Task[None]] = set()

    async def query(self, request: Request) -> Response:
        """POST /projects/{p}/queries."""
        body = await request.json()
        job = self._begin(request.path_params["project"], next(self._ids), body)
        await _at_most(job, body.get("timeoutMs"))
        answer = job.page(0, self._size(body.get("maxResults")))
        return JSONResponse({"kind": "bigquery#queryResponse"} | answer)

    async def insert(self, request: Request) -> Response:
        """POST /projects/{p}/jobs."""
        body = await request.json()
        given = body.get("jobReference", {})
        identity = given.get("jobId") or next(self._ids)
        if identity in self._jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {identity}")
        configuration = body["configuration"]
        options = configuration["query"] | {"jobTimeoutMs": configuration.get("jobTimeoutMs")}
        job = self._begin(request.path_params["project"], identity, {"location": given.get("location")} | options)
        return JSONResponse(job.resource())

    async def job(self, request: Request) -> Response:
        """GET /projects/{p}/jobs/{id}."""
        return JSONResponse(self._found(request).resource())

    async def cancel(self, request: Request) -> Response:
        """POST /projects/{p}/jobs/{id}/cancel."""
        job = self._found(request)
        _finish(job, Refused(400, "stopped", "Job execution was cancelled: User requested cancellation"))
        return JSONResponse({"kind": "bigquery#jobCancelResponse", "job": job.resource()})

    async def results(self, request: Request) -> Response:
        """GET /projects/{p}/queries/{id}."""
        job, params = self._found(request), request.query_params
        await _at_most(job, params.get("timeoutMs"))
        start = int(params.get("pageToken") or params.get("startIndex") or 0)
        answer = job.page(start, self._size(params.get("maxResults")))
        return JSONResponse({"kind": "bigquery#getQueryResultsResponse"} | answer)

    def _begin(self, project: str, identity: str, body: Mapping[str, Any]) -> Job:
        most = body.get("maximumBytesBilled")
        if most is not None and int(most) < _LEAST_BILLED:
            message = f"Query exceeded limit for bytes billed: {most}. {_LEAST_BILLED} or higher required."
            raise Refused(400, "bytesBilledLimitExceeded", message)
        location = body.get("location") or self._location
        job = Job(project, identity, body["query"], location, parameters(body.get("queryParameters", ())))
        self.queries += 1
        self.last_query = body
        self._jobs[identity] = job
        task = asyncio.create_task(self._work(job, body.get("location"), body.get("jobTimeoutMs")))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return job

    async def _work(self, job: Job, location: str | None, timeout_ms: str | None) -> None:
        limit = float(timeout_ms) if timeout_ms else self.query_ms
        await asyncio.sleep(min(self.query_ms, limit) / 1000)
        if limit < self.query_ms:
            _finish(job, Refused(400, "stopped", "Job execution was cancelled: Job timed out"))
            return
        try:
            _finish(job, self.warehouse.run(job.sql, job.project, location, job.parameters))
        except Refused as refused:
            _finish(job, refused)

    def _found(self, request: Request) -> Job:
        identity = request.path_params["job"]
        if identity not in self._jobs:
            raise Refused(404, "notFound", f"Not found: Job {request.path_params['project']}:{identity}")
        return self._jobs[identity]

    def _size(self, asked: str | int | None) -> int:
        return min(int(asked), self._page_rows) if asked is not None else self._page_rows


async def _at_most(job: Job, timeout_ms: str | int | None) -> None:
    try:
        async with asyncio.timeout((_WAIT_MS if timeout_ms is None else int(timeout_ms)) / 1000):
            await job.done.wait()
    except TimeoutError:
        pass


def _finish(job: Job, outcome: Result | Refused) -> None:
    if job.done.is_set():
        return
    if isinstance(outcome, Refused):
        job.error = outcome
    else:
        job.result = outcome
    job.done.set()
