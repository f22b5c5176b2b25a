"""What the admin can be asked and what it answers, as an OpenAPI document (3.1)."""

from __future__ import annotations

from typing import Any, Final

from ..principal import MAX_SUBJECT_BYTES

_JSON: Final = "application/json"
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
    },
    "additionalProperties": False,
}
_TEXT: Final = {"type": "string", "minLength": 1}
_SUBJECT: Final = {**_TEXT, "maxLength": MAX_SUBJECT_BYTES}
_USER: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"email": _TEXT, "subject": _SUBJECT, "tenant": {"type": "string"}},
    "oneOf": [{"required": ["email"]}, {"required": ["subject"]}],
    "additionalProperties": False,
}
_USERS: Final[dict[str, Any]] = {"oneOf": [_USER, {"type": "array", "items": _USER, "minItems": 1}]}
_OR_CLEAR: Final = "whether more than 1,000 users become a clear of all"
_INSTANCE: Final[dict[str, Any]] = {"type": "object", "required": ["instance"]}
_REPORT: Final[dict[str, Any]] = {
    "type": "object",
    "required": [
        "reach",
        "memory",
        "redis",
        "was_known",
        "confirmed",
        "silent",
        "unlisted_stop_within",
        "unlisted_because",
        "others_stop_within",
        "settles_within",
        "duration_ms",
    ],
    "properties": {
        "reach": {"enum": ["fleet", "this process only"]},
        "memory": {"type": "integer", "minimum": 0, "description": "entries this process has forgotten"},
        "redis": {"enum": ["done", "failed", "absent"]},
        "was_known": {"type": ["boolean", "null"], "description": "whether there was something to forget"},
        "confirmed": {
            "type": "array",
            "items": {**_INSTANCE, "properties": {"instance": {"type": "string"}, "ms": {"type": "number"}}},
        },
        "silent": {
            "type": "array",
            "items": {**_INSTANCE, "properties": {"instance": {"type": "string"}, "stops_within": {"type": "number"}}},
        },
        "unlisted_stop_within": {"type": ["number", "null"], "minimum": 0},
        "unlisted_because": {"type": ["string", "null"]},
        "others_stop_within": {"type": ["number", "null"], "minimum": 0},
        "settles_within": {"type": "number", "minimum": 0},
        "duration_ms": {"type": "number", "minimum": 0},
    },
    "additionalProperties": False,
}
_FAILED: Final[dict[str, Any]] = {
    **_PROBLEM,
    "required": [*_PROBLEM["required"], "report"],
    "properties": {**_PROBLEM["properties"], "report": {"$ref": "#/components/schemas/Report"}},
}
_SECONDS: Final = {"schema": {"type": "integer", "minimum": 1}, "description": "seconds to wait"}
_HEADERS: Final[dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    "429": {"Retry-After": {**_SECONDS, "required": True}},
    "503": {"Retry-After": {**_SECONDS, "required": True}},
}


def _problem(status: str, meaning: str, schema: str = "Problem") -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": meaning, "content": content, **headers}


def _answers(schema: str, **problems: str) -> dict[str, Any]:
    refused = {
        "401": "whoever asks is not let in",
        "403": "the admin is closed, its rule lets the user not in, or another site may have sent the request",
        "429": "too many attempts from there have failed",
        "503": "who asks cannot be found out now",
        **{status.removeprefix("_"): meaning for status, meaning in problems.items()},
    }
    done = {"description": "done", "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
    return {"200": done, **{status: _problem(status, meaning) for status, meaning in refused.items()}}


def _told(summary: str, **problems: str) -> dict[str, Any]:
    failed = _problem("502", "Redis could not be told", "Failed")
    return {"summary": summary, "responses": {**_answers("Report", **problems), "502": failed}}


DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {"title": "ctxmiddleware admin", "version": "1"},
    "security": [{"token": []}],
    "paths": {
        "/stats": {"get": {"summary": "The counters of one process.", "responses": _answers("Stats")}},
        "/clear": {"post": _told("Forget everybody, everywhere.")},
        "/invalidate": {
            "post": {
                "parameters": [
                    {"name": "or_clear", "in": "query", "schema": {"type": "boolean"}, "description": _OR_CLEAR}
                ],
                "requestBody": {"required": True, "content": {_JSON: {"schema": _USERS}}},
                **_told("Forget one user, or several, everywhere.", _400="it names no user, or too many"),
            },
        },
        "/invalidate/{email}": {
            "parameters": [
                {"name": "email", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            ],
            "post": _told("Forget the user of an e-mail address, everywhere.", _400="it is no address"),
        },
        "/openapi.json": {"get": {"summary": "This document.", "responses": _answers("Document")}},
    },
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Problem": _PROBLEM,
            "Failed": _FAILED,
            "Report": _REPORT,
            "Stats": {"type": "object", "required": ["name", "pid", "started_at", "memory"]},
            "Document": {"type": "object", "required": ["openapi", "paths"]},
        },
    },
}
