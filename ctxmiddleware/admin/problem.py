"""How the admin says no: problem details (RFC 9457), which nobody keeps."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec
from starlette.responses import Response

# What is told here is data, for nobody to run or to frame.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def problem(status: int, detail: str, *, report: object = None, **headers: str) -> Response:
    """Return problem details.

    Args:
        status: of the answer.
        detail: what went wrong, and the way out.
        report: what was done all the same, as a member of its own.
        **headers: further ones, with underscores for hyphens.
    """
    title = next((known.phrase for known in HTTPStatus if known == status), "Refused")
    body: dict[str, object] = {"type": "about:blank", "title": title, "status": status}
    body["detail"] = detail
    if report is not None:
        body["report"] = report
    named = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Response(msgspec.json.encode(body), status, named, media_type="application/problem+json")
