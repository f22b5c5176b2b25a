"""Whether the demo measures what it says, leaves when it is told to, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ..matrix import in_full
from ..waiting import PATIENCE, eventually
from .demo_process import SMALL, demo

WAN_MS = 5.0
KEYS = {"requests", "db_calls", "warehouse_calls", "p50_ms", "p99_ms", "rps"}


def test_the_comparison_and_the_served_app(tmp_path: Path) -> None:
    """It prints the table, writes the JSON and serves the app with three lines to try, until Ctrl-C: status 0."""
    written = tmp_path / "demo.json"
    with demo(tmp_path, *SMALL, "--wan-ms", f"{WAN_MS:g}", "--json", str(written)) as process:
        said = process.says("Ctrl-C ends the demo.")
        check_figures(json.loads(written.read_text()))
        assert [line.split()[0] for line in said.splitlines() if "4.000" in line] == ["without", "WAN"]
        check_lines_to_try(said)
        assert process.told(signal.SIGINT) == 0, process.said
        assert "Traceback" not in process.said
        assert process.leaves_nothing()


def check_figures(found: dict[str, Any]) -> None:
    """Check the JSON: four calls of the database a request before, about one for each of the fifteen people after."""
    assert found.keys() == {"before", "after", "wan"}
    assert found["wan"].keys() == {"before", "after"}
    for pair in (found, found["wan"]):
        before, after = pair["before"], pair["after"]
        assert before.keys() == KEYS
        assert after.keys() == KEYS | {"hit_rate"}
        assert before["db_calls"] == 4 * before["requests"]
        assert before["warehouse_calls"] > 0.5 * before["requests"]
        assert before["requests"] == after["requests"] == 300
        assert 0 < after["db_calls"] < 0.1 * after["requests"]
        # A request that waits for another one's load is no hit, and no call either; four are under way at most.
        assert after["hit_rate"] <= 1 - after["db_calls"] / after["requests"] + 0.001
        assert after["hit_rate"] >= 1 - 4 * after["db_calls"] / after["requests"] - 0.001
    assert found["after"]["warehouse_calls"] == 1
    assert found["wan"]["after"]["warehouse_calls"] == 0
    # Four round trips, one after the other, cannot take less.
    assert found["wan"]["before"]["p50_ms"] > 4 * WAN_MS


def check_lines_to_try(said: str) -> None:
    """Check that the sample tokens and the three command lines do what they promise."""
    me, stats, invalidate = (shlex.split(line) for line in said.splitlines() if line.startswith("curl "))
    assert len(re.findall(r"^  eyJ", said, re.MULTILINE)) == 3
    context = asked(me)
    resolutions = asked(stats)["resolutions"]
    assert invalidate[-1].endswith(context["email"])
    assert asked(invalidate)["reach"] == "fleet"
    assert asked(me) == context
    assert asked(stats)["resolutions"]["rpc"] == resolutions["rpc"] + 1


def asked(curl: list[str]) -> dict[str, Any]:
    """Do what a curl command line would."""
    name, _, value = curl[curl.index("-H") + 1].partition(": ")
    method = curl[curl.index("-X") + 1] if "-X" in curl else "GET"
    answer = httpx2.request(method, curl[-1], headers={name: value})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("moment", "words", "number", "status"),
    [
        in_full("PostgREST ", (), signal.SIGINT, 0, name="start-up"),
        pytest.param("Company ", ("--exit",), signal.SIGHUP, 130, id="start-up-for-a-script"),
        pytest.param("without, round 1", (), signal.SIGTERM, 0, id="load"),
    ],
)
def test_leaving_early(tmp_path: Path, moment: str, words: tuple[str, ...], number: int, status: int) -> None:
    """Told to leave at any moment, it ends in good order; a script learns that there are no figures."""
    with demo(tmp_path, *SMALL, *words) as process:
        process.says(moment)
        assert process.told(number) == status, process.said
        assert "Stopped before the comparison was complete." in process.said
        assert "Traceback" not in process.said
        assert process.leaves_nothing()


def test_leaving_before_anything_has_started(tmp_path: Path) -> None:
    """Ctrl-C while the command is still being read and its company invented is no traceback either."""
    with demo(tmp_path, "--employees", "200000") as process:
        # Whoever catches SIGTERM has got as far as its first line of code, and no further yet.
        eventually(lambda: catches(process.process.pid, signal.SIGTERM))
        assert process.told(signal.SIGINT) == 130, process.said
        assert process.said.strip() == "Stopped before anything was started."
        assert process.leaves_nothing()


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.full
def test_killed(tmp_path: Path) -> None:
    """Even where it is killed under load, no server, no app and no file outlives it."""
    with demo(tmp_path, *SMALL) as process:
        process.says("without, round 1")
        assert process.told(signal.SIGKILL) == -signal.SIGKILL
        assert process.leaves_nothing(within=PATIENCE)


@pytest.mark.full
def test_without_redis_and_warehouse(tmp_path: Path) -> None:
    """Where neither Valkey nor the warehouse can run, it says so and compares what is left."""
    written = tmp_path / "demo.json"
    words = ("--without", "valkey", "--without", "bigquery", "--wan-ms", "0", "--exit", "--json", str(written))
    with demo(tmp_path, *SMALL, *words) as process:
        assert process.ended() == 0, process.said
        assert process.leaves_nothing()
        assert process.said.count("not here: left out") == 2
    found = json.loads(written.read_text())
    assert found["before"]["warehouse_calls"] == found["after"]["warehouse_calls"] == 0
    assert 0 < found["after"]["db_calls"] < 0.1 * found["after"]["requests"]


@pytest.mark.parametrize(("component", "named"), [("postgres", "PostgreSQL"), in_full("postgrest", "PostgREST")])
def test_without_a_database(tmp_path: Path, component: str, named: str) -> None:
    """Without a database there is nothing to compare: it says which part is missing and fails, without a traceback."""
    written = tmp_path / "demo.json"
    with demo(tmp_path, *SMALL, "--without", component, "--exit", "--json", str(written)) as process:
        assert process.ended() == 1
        assert f"{named} cannot run here" in process.said
        assert "Traceback" not in process.said
        assert process.leaves_nothing()
    assert not written.exists()
