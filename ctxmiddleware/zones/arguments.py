"""Whether zones can be read from BigQuery with the arguments that were given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..option import Count, Seconds, Share
from ..shown import shown

ZONES_TTL: Final = Seconds("Seconds after which zones are read again.", over=0)
MAX_BYTES: Final = Count(
    "Bytes one zones query may bill at most.", least=10_485_760, way_out="BigQuery bills that for the smallest query"
)
_TIMEOUT: Final = Seconds("Seconds one zones query may take.", over=0)
_RETRY_SHARE: Final = Share("Share of them in which failed requests are repeated.", over=0, most=1)

PROJECT: Final = r"(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*"
TABLE: Final = re.compile(rf"(?:{PROJECT}\.)?[A-Za-z0-9_]{{1,1024}}\.[\w -]{{1,1024}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What `BigQueryZones` was given, which may be anything."""

    project: object
    table: object
    query: object
    location: object
    max_bytes: object
    timeout: object
    retry_share: object
    credentials: object
    api_endpoint: object
    client: object

    def faults(self) -> list[str]:
        """Return what is wrong with them, one sentence each."""
        found = [
            _project_fault(self.project),
            _target_fault(self.table, self.query),
            _text_fault("location (BIGQUERY_LOCATION)", self.location, 'a text such as "EU"'),
            _text_fault("api_endpoint", self.api_endpoint, "a URL"),
            self._client_fault(),
            _instance_fault("credentials", self.credentials, "before_request", "google.auth.credentials.Credentials"),
        ]
        faults = [fault for fault in found if fault is not None]
        if self.max_bytes is not None:
            faults += MAX_BYTES.faults("max_bytes (BIGQUERY_MAX_BYTES)", self.max_bytes)
        faults += _TIMEOUT.faults("the BigQuery timeout", self.timeout)
        return faults + _RETRY_SHARE.faults("the BigQuery retry_share", self.retry_share)

    def _client_fault(self) -> str | None:
        if self.client is not None and (self.credentials is not None or self.api_endpoint is not None):
            return "a ready BigQuery client brings its own credentials and endpoint: give it without them"
        return _instance_fault("client", self.client, "query_and_wait", "google.cloud.bigquery.Client")


def _project_fault(project: object) -> str | None:
    name = "the BigQuery project (BIGQUERY_PROJECT)"
    if not isinstance(project, str):
        return _of_another_kind(name, project, "a project id")
    if re.fullmatch(PROJECT, project):
        return None
    return f"{name} is {shown(project)}: a project id is lower-case letters, digits and dashes"


def _target_fault(table: object, query: object) -> str | None:
    if (table is None) == (query is None):
        return "BigQuery zones need a table (BIGQUERY_ZONES_TABLE) or a query: exactly one of the two"
    if query is not None:
        if isinstance(query, str) and not query.strip():
            return "the zones query is empty"
        return _text_fault("the zones query", query, "GoogleSQL")
    name, rule = "the zones table (BIGQUERY_ZONES_TABLE)", "project.dataset.table or dataset.table"
    if not isinstance(table, str):
        return _of_another_kind(name, table, rule)
    return None if TABLE.fullmatch(table) else f"{name} is {shown(table)}: must be {rule}"


def _text_fault(name: str, value: object, rule: str) -> str | None:
    return None if value is None or isinstance(value, str) else _of_another_kind(name, value, rule)


def _instance_fault(name: str, value: object, method: str, rule: str) -> str | None:
    # Google's own classes are not imported before the first load, so it is asked for what is called.
    if value is None or (not isinstance(value, type) and callable(getattr(value, method, None))):
        return None
    return _of_another_kind(name, value, f"an instance of {rule}")


def _of_another_kind(name: str, value: object, rule: str) -> str:
    # Its kind only: the value may be a key that was put in the wrong place.
    kind = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
    return f"{name} is {kind}: must be {rule}"
