"""Whether Valkey runs, takes arguments and is disturbed as told."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import redis

from examples.servers import ServerFailed, Valkey


def test_speaks_redis_and_forgets_on_restart() -> None:
    """It serves at its address, as the process it says, and keeps nothing on disk."""
    with Valkey.start() as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("key", "value")
        assert client.info("server")["process_id"] == valkey.pid
        valkey.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        valkey.restart()
        assert client.get("key") is None


def test_takes_arguments() -> None:
    """Further arguments reach the server, even those after which it answers strangers with an error only."""
    with (
        Valkey.start(args=["--requirepass", "hush", "--maxmemory", "10mb"]) as valkey,
        redis.Redis.from_url(valkey.url, password="hush") as client,
    ):
        assert client.config_get("maxmemory") == {"maxmemory": "10485760"}


def test_a_wrong_argument_is_named() -> None:
    """A server that refuses its configuration is an error with its own words."""
    with (
        pytest.raises(ServerFailed, match=r"Valkey .* cannot run here") as failed,
        Valkey.start(args=["--nonsense", "1"]),
    ):
        pass
    assert "nonsense" in failed.value.log


def test_paused_it_times_out_and_resumed_it_remembers() -> None:
    """A pause is felt as silence and loses nothing."""
    with (
        Valkey.start() as valkey,
        redis.Redis.from_url(valkey.url) as client,
        redis.Redis.from_url(valkey.url, socket_timeout=0.2, retry=None) as hasty,
    ):
        client.set("key", "value")
        valkey.pause()
        with pytest.raises(redis.TimeoutError):
            hasty.get("key")
        valkey.resume()
        assert client.get("key") == b"value"


def test_the_shared_server_is_emptied_first(redis_url: str, valkey: Valkey, request: pytest.FixtureRequest) -> None:
    """A test never sees the keys of another."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_it_runs_however_long_the_path_of_its_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket it also listens at may have no longer path than the system allows."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with Valkey.start() as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
