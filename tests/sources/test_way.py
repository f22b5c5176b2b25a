"""By which way the server is reached: through the proxy of the environment, and with whose certificates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctxmiddleware import Identity
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.sources.base import Loaded
from ctxmiddleware.sources.postgrest import FUNCTION
from ctxmiddleware.sources.supabase import SupabaseSource

from .conftest import ADA, patient
from .small_server import own_certificate, small_server

pytestmark = pytest.mark.anyio

KEY = "sb_secret_abc"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("scheme", ["http://", ""])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_proxy_is_used_with_or_without_its_scheme(
    monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    """Host and port are enough for a proxy, as they are for curl."""
    async with small_server() as proxy, SupabaseSource("http://project.invalid", KEY, pool=patient()) as source:
        monkeypatch.setenv(variable, f"{scheme}127.0.0.1:{proxy.port}")
        assert await source.fetch(Identity(ADA)) == Loaded(None, origin="rpc")
    assert proxy.first_lines == [f"POST http://project.invalid/rest/v1/rpc/{FUNCTION} HTTP/1.1"]


async def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is named in NO_PROXY is reached directly."""
    async with small_server() as server:
        monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with SupabaseSource(f"http://127.0.0.1:{server.port}", KEY, pool=patient()) as source:
            assert await source.fetch(Identity(ADA)) == Loaded(None, origin="rpc")


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
async def test_certificates_are_read_however_https_is_spelt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    """A scheme in capitals is the same scheme, for the project's address and for the replica's."""
    certificate = own_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with small_server(certificate) as server:
        url = f"{scheme}://127.0.0.1:{server.port}"
        async with SupabaseSource(url, KEY, pool=patient()) as source:
            assert await source.fetch(Identity(ADA)) == Loaded(None, origin="rpc")
        async with SupabaseSource("http://127.0.0.1:9", KEY, read_url=url, pool=patient()) as source:
            assert await source.fetch(Identity(ADA)) == Loaded(None, origin="rpc")


async def test_a_certificate_nobody_vouches_for_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The key goes to nobody who cannot prove who it is."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with (
        small_server(own_certificate(tmp_path)) as server,
        SupabaseSource(f"https://127.0.0.1:{server.port}", KEY, pool=patient()) as source,
    ):
        with pytest.raises(SourceUnavailable, match="certificate is not trusted"):
            await source.fetch(Identity(ADA))
    assert server.first_lines == []


def test_the_first_miss_imports_nothing() -> None:
    """What the HTTP client imports with its first connection is there once the source is open: 80 ms of the loop."""
    code = """
import anyio, sys
from ctxmiddleware import Identity, SupabaseSource
from ctxmiddleware.errors import SourceUnavailable

async def main():
    async with SupabaseSource("http://127.0.0.1:9", "sb_secret_x") as source:
        before = set(sys.modules)
        try:
            await source.fetch(Identity("ada@example.org"))
        except SourceUnavailable:
            print(sorted(each for each in set(sys.modules) - before if each.startswith("http")))

anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
