"""Why a connection could not be made, in the words of an operator."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

# The names that OpenSSL gives an answer that is no TLS.
_NO_TLS: Final = frozenset(
    {
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNEXPECTED_EOF_WHILE_READING",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
# By the codes of `openssl verify`.
_BAD_CERTIFICATES: Final = {10: "has expired", 62: "is for another host name", 64: "is for another address"}
NO_TLS: Final = "the port does not speak TLS"


def reason(error: BaseException) -> str | None:
    """Return why a connection failed, from whichever error of the system led to this one, or None where none did."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate {_BAD_CERTIFICATES.get(getattr(seen, 'verify_code', 0), 'is not trusted here')}"
        # Its errno is OpenSSL's own number, and no errno of the system.
        if isinstance(seen, ssl.SSLError):
            return NO_TLS if seen.reason in _NO_TLS else f"TLS failed: {seen.reason or type(seen).__name__}"
        if isinstance(seen, socket.gaierror):
            return "its host name has no address"
        if isinstance(seen, OSError) and seen.errno is not None and seen.errno in errno.errorcode:
            return errno.errorcode[seen.errno]
        # One of a host's addresses stands for all of them.
        seen = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else seen.__cause__ or seen.__context__
    return None
