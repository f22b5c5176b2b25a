"""Whether zones can be read from BigQuery with the arguments that were given."""

from __future__ import annotations

import re
from typing import Final

from ..option import Count, Seconds, Share
from ..shown import shown

ZONES_TTL: Final = Seconds("Seconds after which zones are read again.", over=0, variable="CTX_ZONES_TTL")
MAX_BYTES: Final = Count(
    "Bytes one zones query may bill at most.",
    least=10_485_760,
    variable="BIGQUERY_MAX_BYTES",
    way_out="BigQuery bills that for the smallest query",
)
_TIMEOUT: Final = Seconds("Seconds one zones query may take.", over=0)
_RETRY_SHARE: Final = Share("Share of them in which failed requests are repeated.", over=0, most=1)

PROJECT: Final = r"(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*"
TABLE: Final = re.compile(rf"(?:{PROJECT}\.)?[A-Za-z0-9_]{{1,1024}}\.[\w -]{{1,1024}}")


def faults_of(
    *, project: str, table: str | None, query: str | None, max_bytes: int | None, timeout: float, retry_share: float
) -> list[str]:
    """Return what is wrong with the arguments of `BigQueryZones`, one sentence each."""
    faults = []
    if not re.fullmatch(PROJECT, project):
        rule = "a project id is lower-case letters, digits and dashes"
        faults.append(f"the BigQuery project (BIGQUERY_PROJECT) is {shown(project)}: {rule}")
    if (table is None) == (query is None):
        faults.append("BigQuery zones need a table (BIGQUERY_ZONES_TABLE) or a query: exactly one of the two")
    elif query is not None and not query.strip():
        faults.append("the zones query is empty")
    elif table is not None and not TABLE.fullmatch(table):
        rule = "project.dataset.table or dataset.table"
        faults.append(f"the zones table (BIGQUERY_ZONES_TABLE) is {shown(table)}: must be {rule}")
    if max_bytes is not None:
        faults += MAX_BYTES.faults("max_bytes (BIGQUERY_MAX_BYTES)", max_bytes)
    faults += _TIMEOUT.faults("the BigQuery timeout", timeout)
    return faults + _RETRY_SHARE.faults("the BigQuery retry_share", retry_share)
