"""A certificate authority for one test, and what a server on this machine needs of it."""

from __future__ import annotations

from pathlib import Path

import trustme

from examples.servers import Tls


def certificates(folder: Path) -> Tls:
    """Return a certificate for the loopback interface that nobody trusts but who is given its authority."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1", "localhost")
    files = Tls(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.authority))
    for place, blob in enumerate(own.cert_chain_pems):
        blob.write_to_path(str(files.certificate), append=place > 0)
    own.private_key_pem.write_to_path(str(files.key))
    return files
