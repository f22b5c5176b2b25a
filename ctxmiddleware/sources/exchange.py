"""What goes to the server and what comes back, whichever HTTP client carries it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from ..errors import SourceError, SourceMisconfigured, SourceUnavailable
from ..secret import Secret


@dataclass(frozen=True, slots=True)
class Call:
    """One request, ready to be sent.

    Args:
        method: GET or POST.
        url: the whole address, already encoded.
        headers: sent as they are; secrets show themselves on the wire only.
        body: what is posted.
    """

    method: str
    url: str
    headers: Mapping[str, str | Secret]
    body: bytes | None = None

    def __repr__(self) -> str:
        # The URL and the body hold an address.
        return f"<Call {self.method} {urlsplit(self.url).path}>"


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer.

    Args:
        status: the HTTP status.
        headers: the headers, their names in lower case.
        body: the body, decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<Reply {self.status}, {len(self.body)} bytes>"


class OutOfTime(SourceUnavailable):
    """A query was not answered in its time; one for somebody else, or for fewer, may be."""


class WayClosed(SourceUnavailable):
    """A way that kept failing is left alone for a while; another one may be open."""


class RequestRefused(SourceMisconfigured):
    """Refused by a gateway and not by the API: perhaps for what this one request held."""


class NotSupported(SourceError):
    """The database cannot do what was asked for with these tables."""


class NoReply(SourceUnavailable):
    """No whole answer came.

    Args:
        message: what happened, with nothing of the request in it.
        again: whether asking the same server once more may help.
        outage: whether nobody can be answered now, however little is asked for.
        late: whether the request was sent and its time ran out.
    """

    def __init__(self, message: str, *, again: bool, outage: bool = False, late: bool = False) -> None:
        self.again = again
        self.late = late
        super().__init__(message, outage=outage)


def is_for_everybody(error: Exception) -> bool:
    """Return whether an error says that no user can be answered now."""
    return isinstance(error, SourceMisconfigured) or (isinstance(error, SourceUnavailable) and error.outage)


class StreamedResponse(Protocol):
    """The part of an HTTP client's response that is read here."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers."""
        ...

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The body, decompressed, piece by piece."""
        ...


class HttpClient(Protocol):
    """The part of `httpx2.AsyncClient`, and of `httpx.AsyncClient`, that is used where a ready client is given."""

    def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: tuple[float, float, float, float] | None = None,
        follow_redirects: bool = False,
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """Send a request and stream its response."""
        ...
