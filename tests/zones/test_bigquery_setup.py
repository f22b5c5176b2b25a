"""What BigQueryZones refuses when it is built, whom it asks with which credentials, and what it costs at start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from ctxmiddleware.errors import ConfigurationError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.zones.bigquery import BigQueryZones
from examples.servers.bigquery import BigQueryStandIn
from tests.matrix import in_full
from tests.measured import measured

ROOT = Path(__file__).parents[2]


def run_python(code: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, in which every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def nobody() -> AnonymousCredentials:
    """Return credentials that send none."""
    return AnonymousCredentials()  # type: ignore[no-untyped-call]  # google-auth is typed in parts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": None}, "exactly one of the two"),
        ({"query": "SELECT 1"}, "exactly one of the two"),
        ({"table": None, "query": "  "}, "the zones query is empty"),
        ({"table": "zones"}, "'zones': must be project.dataset.table or dataset.table"),
        ({"table": ""}, "''"),
        ({"table": "geo.zones`; DROP TABLE x; --"}, "must be"),
        ({"table": "geo.zo\\`nes"}, "must be"),
        ({"table": "geo.zones\n"}, "must be"),
        ({"table": "a.b.c.d"}, "must be"),
        ({"table": "p.ge-o.zones"}, "must be"),
        ({"project": ""}, "project"),
        ({"project": "Über"}, "'Über'"),
        ({"project": "p/../x"}, "BIGQUERY_PROJECT"),
        ({"max_bytes": 10_485_759}, "was 10485759, must be a whole number, 10485760 or more: BigQuery bills"),
        ({"max_bytes": 0}, "BIGQUERY_MAX_BYTES"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"retry_share": 0}, "retry_share was 0, must be a share over 0, 1 at most"),
        ({"retry_share": 1.5}, "retry_share"),
        ({"retry_share": float("nan")}, "retry_share"),
        ({"retry_share": True}, "retry_share was True"),
        ({"client": object(), "api_endpoint": "http://x"}, "a ready BigQuery client"),
        ({"max_bytes": "20000000"}, "BIGQUERY_MAX_BYTES) was '20000000', must be a whole number, 10485760 or more"),
        ({"max_bytes": 2e7}, "BIGQUERY_MAX_BYTES) was 20000000.0"),
        ({"max_bytes": True}, "BIGQUERY_MAX_BYTES) was True"),
        ({"timeout": "3"}, "timeout was '3', must be a number of seconds"),
        ({"timeout": None}, "timeout was None"),
        ({"timeout": True}, "timeout was True"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    """The error names the value, the rule and the variable behind it, before anything is asked."""
    with pytest.raises(ConfigurationError) as caught:
        BigQueryZones(**{"project": "demo", "table": "geo.zones", **arguments})
    assert message in str(caught.value)
    assert len(caught.value.faults) == 1


def test_all_faults_are_told_at_once() -> None:
    """Three wrong arguments are three lines of one error."""
    with pytest.raises(ConfigurationError) as caught:
        BigQueryZones("NO", "nowhere", max_bytes=1)
    assert len(caught.value.faults) == 3


def test_a_key_in_the_wrong_place_is_not_shown() -> None:
    """Neither as a name nor as a number."""
    key: Any = "-----BEGIN PRIVATE KEY-----"
    with pytest.raises(ConfigurationError) as caught:
        BigQueryZones(key, key, max_bytes=key, timeout=key, retry_share=key)
    assert len(caught.value.faults) == 5
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    "table", ["geo.zones", "p-1.geo.zones", "example.com:p-1.geo.zones", "p.geo_2.sales zones-2026", "p.geo.Зоны"]
)
def test_every_name_bigquery_allows_is_allowed(table: str) -> None:
    """Dashes, blanks, letters of any script and projects of a domain are legal."""
    assert table in repr(BigQueryZones("demo", table))


def test_its_repr_holds_no_credentials() -> None:
    """It tells the table and the project."""

    class Token(AnonymousCredentials):
        def __repr__(self) -> str:
            return "s3cret"

    zones = BigQueryZones("demo", "geo.zones", credentials=Token())  # type: ignore[no-untyped-call]  # google-auth is typed in parts
    assert repr(zones) == "<BigQueryZones geo.zones by project demo>"


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_the_emulator_variable_is_honoured(
    warehouse: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """BIGQUERY_EMULATOR_HOST, with or without scheme, is asked, and without credentials."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"{scheme}127.0.0.1:{warehouse.port}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")
    assert len(await BigQueryZones("demo", "geo.zones", timeout=5.0).fetch()) == 25


@pytest.mark.anyio
async def test_an_endpoint_comes_before_the_emulator_variable(
    warehouse: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given is what is asked."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
    zones = BigQueryZones("demo", "geo.zones", api_endpoint=warehouse.url, timeout=5.0)
    assert len(await zones.fetch()) == 25


@pytest.mark.anyio
async def test_a_ready_client_stays_its_owner_s(warehouse: BigQueryStandIn) -> None:
    """A client that is given is used for every load and not closed."""

    class Watched(bigquery.Client):
        closed = 0

        def close(self) -> None:
            self.closed += 1
            super().close()  # type: ignore[no-untyped-call]  # the client is typed in parts

    client = Watched(project="demo", credentials=nobody(), client_options={"api_endpoint": warehouse.url})
    zones = BigQueryZones("demo", "geo.zones", client=client, timeout=5.0)
    assert [len(await zones.fetch()), len(await zones.fetch()), client.closed] == [25, 25, 0]
    client.close()


@pytest.mark.anyio
async def test_a_ready_client_that_its_owner_closed_is_left_alone(warehouse: BigQueryStandIn) -> None:
    """It would connect again by itself."""
    client = bigquery.Client(project="demo", credentials=nobody(), client_options={"api_endpoint": warehouse.url})
    zones = BigQueryZones("demo", "geo.zones", client=client, timeout=5.0)
    await zones.fetch()
    client.close()  # type: ignore[no-untyped-call]  # the client is typed in parts
    with pytest.raises(SourceUnavailable, match="BigQuery client given was closed by its owner"):
        await zones.fetch()


@pytest.mark.anyio
async def test_missing_credentials_are_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key file that is not there is a configuration error that says what to set."""
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")
    with pytest.raises(SourceMisconfigured, match="set GOOGLE_APPLICATION_CREDENTIALS"):
        await BigQueryZones("demo", "geo.zones", timeout=5.0).fetch()


@pytest.mark.anyio
async def test_a_server_without_tls_is_told_as_such(warehouse: BigQueryStandIn) -> None:
    """An https endpoint that speaks no TLS is a configuration error."""
    endpoint = f"https://127.0.0.1:{warehouse.port}"
    zones = BigQueryZones("demo", "geo.zones", api_endpoint=endpoint, credentials=nobody(), timeout=5.0)
    with pytest.raises(SourceMisconfigured, match="the port does not speak TLS; write http:// in api_endpoint"):
        await zones.fetch()


def test_google_is_not_imported_at_start() -> None:
    """Importing the module and building the source costs nothing of Google's client."""
    done = run_python(
        "import sys; from ctxmiddleware.zones.bigquery import BigQueryZones; BigQueryZones('demo', 'geo.zones');"
        "print(sorted(m for m in sys.modules if m.startswith(('google.cloud.', 'google.a', 'requests', 'grpc'))))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("missing", ["google", "google.cloud", "google.cloud.bigquery"])
def test_a_missing_extra_is_told_when_the_source_is_built(missing: str) -> None:
    """Without google-cloud-bigquery, building says what to install, and importing works."""
    program = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from ctxmiddleware.errors import MissingExtra\n"
        "from ctxmiddleware.zones.bigquery import BigQueryZones\n"
        "try: BigQueryZones('demo', 'geo.zones')\n"
        "except MissingExtra as error: print(error.extra, error)\n"
    )
    done = run_python(measured(program), missing)
    expected = (
        "bigquery reading zones from BigQuery needs an optional dependency: pip install 'ctxmiddleware[bigquery]'\n"
    )
    assert (done.stdout, done.stderr) == (expected, "")


@pytest.mark.parametrize("backend", ["asyncio", in_full("trio")])
def test_a_hung_warehouse_does_not_delay_the_exit(warehouse: BigQueryStandIn, backend: str) -> None:
    """A process that ends while a load hangs is gone at once, not when Google's client gives up."""
    warehouse.behave(fault={"times": 1000, "hang": True})
    done = run_python(
        "import sys, anyio; from ctxmiddleware.zones.bigquery import BigQueryZones\n"
        "async def main():\n"
        "    with anyio.move_on_after(2):\n"
        "        await BigQueryZones('demo', 'geo.zones', api_endpoint=sys.argv[1], timeout=600.0).fetch()\n"
        "    print('left')\n"
        "anyio.run(main, backend=sys.argv[2])\n",
        warehouse.url,
        backend,
    )
    assert (done.stdout, done.stderr) == ("left\n", "")
