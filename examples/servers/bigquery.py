"""How the BigQuery stand-in is started, seeded, counted and disturbed."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from .handle import Server
from .process import Launch, ServerFailed, ServerProcess, inherited, temporary_folder

COMPONENT = "BigQuery stand-in"
_ROOT = Path(__file__).parents[2]
_APP = "examples.servers.bigquery_app"

Rows = Sequence[Mapping[str, str | int | float | bool | None]]


class BigQueryStandIn(Server):
    """A local server that speaks enough of BigQuery's REST API for the real client to run queries against it."""

    @classmethod
    @contextlib.contextmanager
    def start(cls, tables: Mapping[str, Rows], *, location: str = "US", page_rows: int = 10_000) -> Iterator[Self]:
        """Serve these tables and end it.

        Args:
            tables: rows by `dataset.table`; a column has the type of its first value that is not None.
            location: where the data lies; a query sent elsewhere finds nothing.
            page_rows: rows of a page at most.

        Raises:
            ServerFailed: it cannot run here.
        """
        if empty := [name for name, rows in tables.items() if not any(rows)]:
            raise ValueError(f"tables get their columns from their rows, and these have none: {', '.join(empty)}")
        with temporary_folder("bigquery") as folder:
            settings = folder / "settings.json"
            settings.write_text(json.dumps({"tables": tables, "location": location, "page_rows": page_rows}))

            def launch(port: int) -> Launch:
                return Launch([sys.executable, "-m", _APP, str(port), str(settings)], inherited(PYTHONPATH=str(_ROOT)))

            with ServerProcess(COMPONENT, launch, _answers, log=folder / "log") as process:
                yield cls(process)

    @property
    def url(self) -> str:
        """Its address for `BIGQUERY_EMULATOR_HOST` or `api_endpoint`."""
        return f"http://127.0.0.1:{self.port}"

    def queries(self) -> int:
        """Return how many queries were started since the server was."""
        return int(_call(self.port, "GET", "/control/state")["queries"])

    def requests(self) -> int:
        """Return how many requests of the API have come, the spoiled ones too."""
        return int(_call(self.port, "GET", "/control/state")["requests"])

    def last_query(self) -> dict[str, Any]:
        """Return the body of the last request that started a query."""
        body: dict[str, Any] = _call(self.port, "GET", "/control/state")["last_query"]
        return body

    def put(self, table: str, rows: Rows) -> None:
        """Replace the table `dataset.table`."""
        _call(self.port, "PUT", f"/control/tables/{table}", rows)

    def behave(self, *, delay_ms: float = 0.0, query_ms: float = 0.0, fault: Mapping[str, Any] | None = None) -> None:
        """Set how it behaves from now on; without arguments as it should.

        Args:
            delay_ms: milliseconds each request waits first, as on a long line.
            query_ms: milliseconds each query runs.
            fault: what is wrong with the next requests: `times` how many, `after` how many come through before, and
                `status`, `body`, `content_type`, `headers` for an answer, `cut` for one that breaks off, or `hang`.
        """
        _call(self.port, "PUT", "/control/behaviour", {"delay_ms": delay_ms, "query_ms": query_ms, "fault": fault})

    def fail(
        self, status: int, reason: str, message: str, *, times: int = 1000, after: int = 0, **headers: str
    ) -> None:
        """Answer the next requests with an error in BigQuery's form."""
        errors = [{"reason": reason, "message": message, "domain": "global"}]
        body = json.dumps({"error": {"code": status, "message": message, "errors": errors}})
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self.behave(fault={"times": times, "after": after, "status": status, "body": body, "headers": sent})


def _answers(port: int) -> bool:
    return "queries" in _call(port, "GET", "/control/state")


def _call(port: int, method: str, path: str, body: object = None) -> dict[str, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise ServerFailed(COMPONENT, f"{method} {path} was answered with {response.status}", answer.decode())
        decoded: dict[str, Any] = json.loads(answer)
        return decoded
