"""How zones are read out of BigQuery through Google's own client, without blocking an event loop."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import anyio

from .. import forking, network
from ..borrowed import Borrowed
from ..errors import ConfigurationError, ContextError, MissingExtra, SourceError, SourceMisconfigured, SourceUnavailable
from ..model import Zone
from ..tracebacks import reduced, sheltered
from .arguments import faults_of
from .rows import COLUMNS, RowReader, require_columns
from .threads import in_daemon_thread
from .wording import without_addresses

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.credentials import Credentials
    from google.cloud import bigquery

# Threads whose server never ends its answer; each load leaves one behind at most.
_MOST_THREADS: Final = 4
# Tries end before the load is given up, so that the error tells what the last one met.
RETRY_SHARE: Final = 0.8

_PASSING: Final = frozenset(
    {
        "backendError",
        "badGateway",
        "internalError",
        "jobBackendError",
        "jobInternalError",
        "jobRateLimitExceeded",
        "quotaExceeded",
        "rateLimitExceeded",
        "stopped",
        "tableUnavailable",
        "timeout",
    }
)
_WAY_OUT: Final = {
    "accessDenied": "grant the account roles/bigquery.jobUser on the project that runs the query and "
    "roles/bigquery.dataViewer on the zones table",
    "billingNotEnabled": "enable billing for the project that runs the query",
    "bytesBilledLimitExceeded": "raise max_bytes (BIGQUERY_MAX_BYTES) or read fewer bytes with a query of your own",
    "invalidQuery": f"the zones table needs the columns {', '.join(COLUMNS)}; map others with a query of your own",
    "notFound": "check the zones table (BIGQUERY_ZONES_TABLE), the project (BIGQUERY_PROJECT) and the location "
    "(BIGQUERY_LOCATION)",
    401: "check the credentials",
    403: "check the rights of the account",
    404: "check the project, the zones table and the location",
}
_CREDENTIALS: Final = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, run where the platform supplies an account, "
    "or give credentials="
)


class BigQueryZones:
    """Zones from a table or a query of BigQuery; needs the extra `bigquery`.

    The result needs the columns `id` (STRING or INT64), `name` and `region_code` (STRING), none of them NULL. Google's
    client is imported at the first load, in a thread. Where `BIGQUERY_EMULATOR_HOST` is set, that server is asked, and
    a server asked in the clear (`http://`) is asked without credentials.

    Args:
        project: the project that runs, and pays for, the query.
        table: `project.dataset.table` or `dataset.table`.
        query: GoogleSQL that yields the three columns, instead of a table.
        location: where the data set lies, such as "EU"; BigQuery finds it by itself in most cases.
        max_bytes: bytes a load may be billed for at most, from 10,485,760.
        timeout: seconds after which a load is given up.
        retry_share: the part of `timeout` in which what may pass is tried again.
        credentials: instead of the ones found in the surroundings.
        api_endpoint: URL of the service, instead of Google's.
        client: a ready client, which stays the caller's to close.

    Raises:
        ConfigurationError: an argument cannot work; all faults are listed.
        MissingExtra: google-cloud-bigquery is not installed.
    """

    @sheltered
    def __init__(
        self,
        project: str,
        table: str | None = None,
        *,
        query: str | None = None,
        location: str | None = None,
        max_bytes: int | None = None,
        timeout: float = 30.0,
        retry_share: float = RETRY_SHARE,
        credentials: Credentials | None = None,
        api_endpoint: str | None = None,
        client: bigquery.Client | None = None,
    ) -> None:
        faults = faults_of(
            project=project, table=table, query=query, max_bytes=max_bytes, timeout=timeout, retry_share=retry_share
        )
        if client is not None and (credentials is not None or api_endpoint is not None):
            faults.append("a ready BigQuery client brings its own credentials and endpoint: give it without them")
        if faults:
            raise ConfigurationError(*faults)
        if client is None and not _installed():
            raise MissingExtra("reading zones from BigQuery", "bigquery")
        self._project = project
        self._sql = query or f"SELECT {', '.join(COLUMNS)} FROM `{table}`"  # noqa: S608 - the name is validated
        self._what = table or "the zones query"
        self._location = location
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._retry_for = retry_share * timeout
        self._credentials = credentials
        self._api_endpoint = _endpoint(api_endpoint)
        self._client = client
        self._client_use = forking.OneProcess()
        self._lent = None if client is None else Borrowed(client, "close")
        self.begin_anew()
        forking.register(self)

    def __repr__(self) -> str:
        return f"<BigQueryZones {self._what} by project {self._project}>"

    def begin_anew(self) -> None:
        """Count threads anew in a forked process, which has none of its parent's."""
        self._threads = threading.BoundedSemaphore(_MOST_THREADS)

    async def fetch(self) -> Sequence[Zone]:
        """Return all zones, within the timeout whatever the server does.

        Raises:
            SourceUnavailable: BigQuery cannot be reached, is out of order, over quota or too slow.
            SourceMisconfigured: BigQuery refuses, and will until somebody mends the installation.
            SourceError: too many rows do not fit; the message names the table and the field of the first.
        """
        with anyio.move_on_after(self._timeout):
            return await in_daemon_thread("ctxmiddleware-zones", self._load)
        raise SourceUnavailable(f"BigQuery did not answer for {self._what} within {self._timeout:g} s")

    def _load(self, given_up: threading.Event) -> tuple[Zone, ...]:
        if not self._threads.acquire(blocking=False):
            raise SourceUnavailable(f"{_MOST_THREADS} loads of {self._what} that were given up have still not ended")
        try:
            return self._ask(given_up)
        except ContextError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the client raises is the source's fault, translated once
            ours = _translated(error, self._what)
            # The client's text may hold an account's address, and a chained error is printed with the traceback.
            ours.__cause__ = None if "@" in str(error) else reduced(error)
        finally:
            self._threads.release()
        # Outside of the handler: the client's own error holds credentials in its frames.
        raise ours

    def _ask(self, given_up: threading.Event) -> tuple[Zone, ...]:
        if self._client is not None and not self._client_use.claim():
            raise SourceMisconfigured(
                "the BigQuery client given was used before this process was forked, and its connections are the "
                "parent's: leave client= out, or make client and plugin after the fork"
            )
        if self._lent is not None and self._lent.is_closed:
            raise SourceUnavailable(
                "the BigQuery client given was closed by its owner: close it after the plugin, or leave client= out"
            )
        client = self._client or self._connected()
        try:
            return self._run(client, given_up)
        finally:
            if client is not self._client:
                client.close()  # type: ignore[no-untyped-call]  # the client is typed in parts

    def _connected(self) -> bigquery.Client:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        endpoint, credentials = self._api_endpoint, self._credentials
        if credentials is None and endpoint is not None and endpoint.startswith("http://"):
            # A token sent in the clear is everybody's.
            credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]  # google-auth is typed in parts
        options = {"api_endpoint": endpoint} if endpoint else {}
        return bigquery.Client(project=self._project, credentials=credentials, client_options=options)

    def _run(self, client: bigquery.Client, given_up: threading.Event) -> tuple[Zone, ...]:
        from google.api_core.retry import Retry
        from google.cloud import bigquery

        def again(error: Exception) -> bool:
            # What nobody waits for any more must not go on asking, and costing, behind everybody's back.
            return not given_up.is_set() and isinstance(_translated(error, self._what), SourceUnavailable)

        # The job's own limit ends what is given up here, or the warehouse works on and bills for it.
        config = bigquery.QueryJobConfig(job_timeout_ms=int(self._timeout * 1000))
        if self._max_bytes is not None:
            config.maximum_bytes_billed = self._max_bytes
        result = client.query_and_wait(
            self._sql,
            job_config=config,
            location=self._location,
            project=self._project,
            api_timeout=self._timeout,
            wait_timeout=self._timeout,
            retry=Retry(predicate=again, timeout=self._retry_for),
            job_retry=None,  # type: ignore[arg-type]  # None switches it off, says the client's documentation
        )
        require_columns((field.name for field in result.schema), self._what)
        reader = RowReader(self._what)
        for row in result:
            if given_up.is_set():
                # Page after page of a table nobody waits for any more would fill the memory.
                raise SourceUnavailable(f"the load of {self._what} was given up")
            reader.read(row)
        return reader.zones()


def _installed() -> bool:
    try:
        return importlib.util.find_spec("google.cloud.bigquery") is not None
    except ModuleNotFoundError:
        return False


def _endpoint(given: str | None) -> str | None:
    endpoint = given or os.environ.get("BIGQUERY_EMULATOR_HOST") or None
    if endpoint is None or "://" in endpoint:
        return endpoint
    return f"http://{endpoint}"


def _translated(error: Exception, what: str) -> SourceError:
    """Return our error for one of Google's client: an answer of the service by its reason, then by its status."""
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    text = f"{what}: {without_addresses(str(error))}"
    match error:
        case api.RetryError():
            cause = error.cause
            after = _retry_after(cause) if isinstance(cause, api.GoogleAPICallError) else None
            return SourceUnavailable(text, retry_after=after)
        case api.GoogleAPICallError():
            return _answered(error, text)
        case auth.DefaultCredentialsError() | auth.RefreshError(retryable=False):
            return SourceMisconfigured(f"{text}; {_CREDENTIALS}")
        case requests.exceptions.SSLError():
            if network.reason(error) == network.NO_TLS:
                way_out = "write http:// in api_endpoint, or the port that does"
                return SourceMisconfigured(f"{what}: {network.NO_TLS}; {way_out}")
            return SourceMisconfigured(f"{text}; check the endpoint's certificate")
        case requests.exceptions.RequestException() | auth.TransportError() | auth.RefreshError() | OSError():
            return SourceUnavailable(text)
        case _:
            return SourceError(f"{what}: BigQuery's client failed with {type(error).__name__}")


def _answered(error: GoogleAPICallError, text: str) -> SourceError:
    reason, status = _reason(error), error.code or 500
    if reason in _PASSING or (reason not in _WAY_OUT and (status == 429 or status >= 500)):
        return SourceUnavailable(text, retry_after=_retry_after(error))
    way_out = _WAY_OUT.get(reason) or _WAY_OUT.get(status)
    return SourceMisconfigured(f"{text}; {way_out}" if way_out else text)


def _reason(error: GoogleAPICallError) -> str:
    """Return BigQuery's own word for an error, such as "accessDenied"; empty where a gateway answered in its place."""
    first = error.errors[0] if error.errors else None
    return str(first.get("reason", "")) if isinstance(first, dict) else ""


def _retry_after(error: GoogleAPICallError) -> float | None:
    header = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return float(header) if header.isascii() and header.isdecimal() else None
