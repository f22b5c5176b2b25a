"""How the BigQuery stand-in runs GoogleSQL on DuckDB, and what it refuses as BigQuery would."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp

_TYPES = {
    "BIGINT": "INTEGER",
    "INTEGER": "INTEGER",
    "SMALLINT": "INTEGER",
    "TINYINT": "INTEGER",
    "HUGEINT": "INTEGER",
    "DOUBLE": "FLOAT",
    "FLOAT": "FLOAT",
    "BOOLEAN": "BOOLEAN",
    "VARCHAR": "STRING",
    "BLOB": "BYTES",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "DATETIME",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    '"NULL"': "INTEGER",
}
_COLUMN_TYPES = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", type(None): "VARCHAR"}


class Refused(Exception):
    """An answer in BigQuery's error form."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message
        super().__init__(message)

    @property
    def proto(self) -> dict[str, str]:
        """The error in the form of a job's status."""
        return {"reason": self.reason, "message": self.message, "domain": "global"}


@dataclass
class Result:
    """A finished query's columns, as BigQuery describes them, and its rows, as it encodes them."""

    fields: list[dict[str, str]]
    rows: list[dict[str, Any]]


class Warehouse:
    """Tables in DuckDB, asked in GoogleSQL."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._db = duckdb.connect()

    def put(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace the table `dataset.table`; a column's type is that of its first value that is not null."""
        dataset, table = name.split(".")
        columns = list(dict.fromkeys(column for row in rows for column in row))
        types = [_COLUMN_TYPES[_kind(row.get(column) for row in rows)] for column in columns]
        described = ", ".join(f"{_quoted(column)} {kind}" for column, kind in zip(columns, types, strict=True))
        self._db.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(dataset)}")
        self._db.execute(f"CREATE OR REPLACE TABLE {_quoted(dataset)}.{_quoted(table)} ({described})")
        values = [[row.get(column) for column in columns] for row in rows]
        marks = ", ".join("?" * len(columns))
        self._db.executemany(f"INSERT INTO {_quoted(dataset)}.{_quoted(table)} VALUES ({marks})", values)  # noqa: S608

    def run(
        self, sql: str, project: str, location: str | None, parameters: Mapping[str, object] | None = None
    ) -> Result:
        """Answer a query.

        Args:
            sql: in GoogleSQL.
            project: whose tables are meant where none is named.
            location: where it was sent, or None.
            parameters: values by the names they have in the query.

        Raises:
            Refused: as BigQuery would.
        """
        statement = _parsed(sql)
        for table in statement.find_all(exp.Table):
            self._check(table, project, location)
            table.set("catalog", None)
        try:
            cursor = self._db.cursor().execute(statement.sql("duckdb"), parameters or None)
            described = [(str(name), str(kind)) for name, kind, *_ in cursor.description or ()]
            values = cursor.fetchall()
        except duckdb.Error as error:
            raise Refused(400, "invalidQuery", str(error).split("\n")[0]) from error
        fields = [{"name": name, "type": _type(kind), "mode": "NULLABLE"} for name, kind in described]
        return Result(fields, [{"f": [{"v": _encoded(value)} for value in row]} for row in values])

    def _check(self, table: exp.Table, project: str, location: str | None) -> None:
        owner, dataset, name = table.catalog or project, table.db, table.name
        if not dataset:
            raise Refused(400, "invalid", f'Table "{name}" must be qualified with a dataset (e.g. dataset.table).')
        here = location in (None, self._location)
        if not here or not self._has("information_schema.schemata", "schema_name = ?", dataset):
            where = location or self._location
            raise Refused(404, "notFound", f"Not found: Dataset {owner}:{dataset} was not found in location {where}")
        if not self._has("information_schema.tables", "table_schema = ? AND table_name = ?", dataset, name):
            message = f"Not found: Table {owner}:{dataset}.{name} was not found in location {self._location}"
            raise Refused(404, "notFound", message)

    def _has(self, view: str, condition: str, *values: str) -> bool:
        sql = f"SELECT 1 FROM {view} WHERE {condition}"  # noqa: S608 - both are literals of this file
        return self._db.execute(sql, values).fetchone() is not None


def parameters(given: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """Return a request's named parameters: strings and whole numbers, alone and in arrays.

    Raises:
        Refused: a parameter is of another type.
    """
    return {one["name"]: _given(one["parameterType"], one["parameterValue"]) for one in given}


def _given(kind: Mapping[str, Any], value: Mapping[str, Any]) -> object:
    if kind["type"] == "ARRAY":
        return [_given(kind["arrayType"], each) for each in value.get("arrayValues", ())]
    if kind["type"] not in ("STRING", "INT64"):
        raise Refused(400, "invalid", f"This stand-in takes no parameters of the type {kind['type']}")
    return int(value["value"]) if kind["type"] == "INT64" else value["value"]


def _parsed(sql: str) -> exp.Query | exp.DML | exp.DDL:
    try:
        statements = sqlglot.parse(sql, read="bigquery")
    except sqlglot.errors.SqlglotError as error:
        raise Refused(400, "invalidQuery", f"Syntax error: {str(error).splitlines()[0]}") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query | exp.DML | exp.DDL):
        raise Refused(400, "invalidQuery", "Syntax error: Expected one statement")
    return statements[0]


def _kind(values: Iterable[object]) -> type:
    return next((type(value) for value in values if value is not None), type(None))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _type(kind: str) -> str:
    if kind.startswith("DECIMAL"):
        return "NUMERIC"
    if kind not in _TYPES:
        raise Refused(400, "invalidQuery", f"This stand-in answers scalars only, and a column is {kind}")
    return _TYPES[kind]


_ENCODERS: list[tuple[type, Callable[[Any], str]]] = [
    (bool, lambda value: str(value).lower()),
    (bytes, lambda value: base64.b64encode(value).decode()),
    (datetime.datetime, lambda value: value.isoformat() if value.tzinfo is None else _microseconds(value)),
    (datetime.date, lambda value: value.isoformat()),
    (datetime.time, lambda value: value.isoformat()),
]


def _encoded(value: object) -> str | None:
    if value is None:
        return None
    return next((encode(value) for kind, encode in _ENCODERS if isinstance(value, kind)), str(value))


def _microseconds(moment: datetime.datetime) -> str:
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return str(since // datetime.timedelta(microseconds=1))
