"""What an operator asks a running application from a shell, over a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route

from ctxmiddleware import BearerToken, ContextPlugin, Identity, InvalidationReport, UserContext
from ctxmiddleware.cli import main
from ctxmiddleware.settings import rules
from ctxmiddleware.testing import StaticSource

from .waiting import eventually

TOKEN = "a-token-for-the-admin"


def plain(request: object) -> PlainTextResponse:
    """Answer what the admin never answers."""
    return PlainTextResponse("hello")


def elsewhere(request: object) -> RedirectResponse:
    """Send the caller to another place."""
    return RedirectResponse("http://127.0.0.1:1/")


FORGOTTEN: list[object] = []


class Noting(ContextPlugin[UserContext]):
    """A plugin that records the users it is to forget."""

    async def invalidate(
        self, users: str | Identity | Iterable[str | Identity], *, or_clear: bool = False
    ) -> InvalidationReport:
        """Record the users."""
        FORGOTTEN.append(users)
        return await super().invalidate(users, or_clear=or_clear)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A running application with the admin, an endpoint that is not the admin, and one that redirects."""
    source: StaticSource[UserContext] = StaticSource({})
    plugin = Noting(source=source, admin_guard=BearerToken(TOKEN))
    routes = [
        Mount("/admin", app=plugin.admin),
        Mount("/other", routes=[Route("/stats", plain)]),
        Mount("/moved", routes=[Route("/stats", elsewhere)]),
    ]
    config = uvicorn.Config(Starlette(routes=routes, lifespan=plugin.lifespan), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    for rule, _ in rules():
        monkeypatch.delenv(rule.variable, raising=False)
    monkeypatch.setenv("CTX_ADMIN_TOKEN", TOKEN)


def test_stats_prints_the_counters_as_json(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed can be read by a person and piped into a program."""
    assert main(["stats", "--url", f"{address}/admin"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["entries"] == 0


@pytest.mark.parametrize("words", [["invalidate", "Ada+x/y@example.com"], ["invalidate", "--subject", "7"], ["clear"]])
def test_forgetting_prints_the_report(address: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An operator sees how far it reached; an address with a slash and a plus arrives whole."""
    assert main([*words, "--url", f"{address}/admin/"]) == 0
    assert json.loads(capsys.readouterr().out)["reach"] == "this process only"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["typo"], ["nothing was kept: no instance has looked up what was named lately", "'typo' holds no '@'"]),
        (["nobody@example.com"], ["nothing was kept"]),
        (["--subject", "typo"], ["nothing was kept"]),
    ],
    ids=["no address", "unknown", "subject"],
)
def test_an_operator_sees_that_nothing_was_forgotten(
    address: str, words: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The name may be misspelt; the report is printed apart, for a program."""
    assert main(["invalidate", *words, "--url", f"{address}/admin"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["was_known"] is False
    lines = shown.err.splitlines()
    assert all(line.startswith(f"ctxmiddleware: {each}") for line, each in zip(lines, told, strict=True))


def test_several_users_are_forgotten_at_once(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Addresses and subjects in one question; a tenant is of all of them."""
    FORGOTTEN.clear()
    words = ["ada@example.com", "bob@example.com", "--subject", "7", "--subject", "8", "--tenant", "acme"]
    assert main(["invalidate", *words, "--url", f"{address}/admin"]) == 0
    assert json.loads(capsys.readouterr().out)["redis"] == "absent"
    named = [Identity(each, tenant="acme") for each in words[:2]]
    assert [[*named, *(Identity(subject=each, tenant="acme") for each in "78")]] == FORGOTTEN


def test_too_many_users_become_a_clear_only_where_that_is_said(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way out is in the line that refuses them."""
    many = [f"user{number}@example.com" for number in range(1001)]
    assert main(["invalidate", *many, "--url", f"{address}/admin"]) == 1
    assert "or_clear=true" in capsys.readouterr().err
    assert main(["invalidate", *many, "--or-clear", "--url", f"{address}/admin"]) == 0
    assert json.loads(capsys.readouterr().out)["was_known"] is None


@pytest.mark.parametrize(
    ("words", "user"),
    [
        (["Ada+x/y@example.com"], Identity("ada+x/y@example.com")),
        ([" ADA@example.com ", "--tenant", "acme"], Identity("ada@example.com", tenant="acme")),
        (["--subject", "auth0|aB3/../x"], Identity(subject="auth0|aB3/../x")),
        (["--subject", "ada@example.com", "--tenant", "https://issuer.example"], None),
        (["--subject= a\x01\u00e4\U0001f600"], Identity(subject=" a\x01\u00e4\U0001f600")),
        (["--subject=-x"], Identity(subject="-x")),
    ],
)
def test_the_user_arrives_whole(
    address: str, words: list[str], user: Identity | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address in its normalised spelling, a subject byte for byte, each with its tenant."""
    FORGOTTEN.clear()
    assert main(["invalidate", *words, "--url", f"{address}/admin"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"] == 0
    assert [user or Identity(subject="ada@example.com", tenant="https://issuer.example")] == FORGOTTEN


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give one user or more: EMAIL or --subject SUBJECT"),
        (["--tenant", "acme"], "give one user or more: EMAIL or --subject SUBJECT"),
        ([""], "Identity.email is empty"),
        ([" \t"], "Identity.email is empty"),
        (["--subject", ""], "Identity.subject is empty"),
        (["--subject", "secret" * 50], "Identity.subject has 300 bytes; 255 are the most"),
        (["--subject", "secret\udcff"], "Identity.subject is not UTF-8 text"),
        (["ada@example.com", "--tenant", "secret\udcff"], "Identity.tenant is not UTF-8 text"),
    ],
)
def test_no_user_is_a_misuse(address: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong, the status is 2, and the application is not called."""
    FORGOTTEN.clear()
    assert main(["invalidate", *words, "--url", f"{address}/admin"]) == 2
    shown = capsys.readouterr()
    assert shown.err == f"ctxmiddleware: {told}\n"
    assert shown.out == ""
    assert FORGOTTEN == []


def test_a_wrong_token_is_told(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal is passed on, and the token is not printed."""
    monkeypatch.setenv("CTX_ADMIN_TOKEN", "another-token-altogether")
    assert main(["stats", "--url", f"{address}/admin"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("ctxmiddleware: 401: send Authorization")
    assert "another-token" not in told


@pytest.mark.parametrize(
    ("path", "told"),
    [("/nowhere", "404: what answers there is not the admin"), ("/other", "not JSON"), ("/moved", "307")],
)
def test_what_is_not_the_admin_is_told(address: str, path: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong address ends with a sentence; a redirect is not followed, because the token would go along."""
    assert main(["stats", "--url", f"{address}{path}"]) == 1
    assert told in capsys.readouterr().err


def test_nobody_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A refused connection is one line, not a traceback."""
    assert main(["clear", "--url", "http://127.0.0.1:1/admin"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_an_address_that_is_none_is_a_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    """Only http and https are spoken."""
    assert main(["stats", "--url", "file:///etc/hosts"]) == 2
    assert "http or https" in capsys.readouterr().err


def test_without_a_token_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The missing variable is named."""
    monkeypatch.delenv("CTX_ADMIN_TOKEN")
    assert main(["stats"]) == 2
    assert "CTX_ADMIN_TOKEN is not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    "token", ["a-token-with\na-line-in-it", "too-short", "a-token with spaces in it", "t\u00f6ken" * 4]
)
def test_a_token_no_application_would_take_is_refused_and_not_printed(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable is named, before anything is asked."""
    monkeypatch.setenv("CTX_ADMIN_TOKEN", token)
    monkeypatch.setenv("CTX_TTL", "what is wrong with the others is none of this command's business")
    assert main(["stats", "--url", "http://127.0.0.1:1"]) == 2
    told = capsys.readouterr().err
    assert "CTX_ADMIN_TOKEN held a value that is not shown" in told
    assert token[:5] not in told
    assert "CTX_TTL" not in told


def test_settings_lists_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    """Each variable is there with its default, or that it is set, and never with what it holds."""
    assert main(["settings"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n{rule.variable}  (" in f"\n{told}" for rule, _ in rules())
    assert "CTX_ADMIN_TOKEN  (set)" in told
    assert "CTX_TTL  (default 900)" in told
    assert TOKEN not in told


@pytest.fixture
def _supabase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "https://project.example")
    monkeypatch.setenv("SUPABASE_KEY", "sb_secret_example")


@pytest.mark.usefixtures("_supabase")
def test_settings_check_tells_all_faults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A deployment can be checked before it is started: what cannot be read, and what the parts refuse."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert main(["settings", "--check"]) == 0
    monkeypatch.setenv("CTX_TTL", "-1")
    monkeypatch.setenv("DB_MAX_CONNECTIONS", "0")
    monkeypatch.setenv("REDIS_URL", "redis://h/notanumber")
    monkeypatch.setenv("SUPABASE_KEY", "sb_publishable_HUNTER2")
    monkeypatch.setenv("CTX_ENCRYPTION_KEYS", "HUNTER2")
    assert main(["settings", "--check"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("ctxmiddleware: 5 faults")
    for variable in ("CTX_TTL", "DB_MAX_CONNECTIONS", "REDIS_URL", "SUPABASE_KEY", "CTX_ENCRYPTION_KEYS"):
        assert f"\n  - {variable}" in told
    assert "HUNTER2" not in told


def test_settings_check_names_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """An application that would not start is not called right, unless it brings its own source."""
    assert main(["settings", "--check"]) == 2
    told = capsys.readouterr().err
    assert "SUPABASE_URL is not set" in told
    assert "SUPABASE_KEY is not set" in told
    assert main(["settings", "--check", "--own-source"]) == 0


@pytest.mark.usefixtures("_supabase")
def test_settings_check_knows_who_verifies_tokens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the start would: by themselves, or by the application, which need not know the secret then."""
    monkeypatch.setenv("SUPABASE_JWKS_URL", "https://project.example/keys")
    assert main(["settings", "--check"]) == 0
    assert main(["settings", "--check", "--own-identify"]) == 0
    monkeypatch.setenv("SUPABASE_JWT_SECRET", "HUNTER2")
    assert main(["settings", "--check"]) == 2
    told = capsys.readouterr().err
    assert "SUPABASE_JWT_SECRET held a value that is not shown" in told
    assert "HUNTER2" not in told


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_nobody_wants_is_not_read(address: str, *, chunked: bool) -> None:
    """Millions of bytes of anything: the server answers, and is there for the next."""
    body = b"\xff{" * 2_000_000
    with httpx2.Client(timeout=30) as client:
        for _ in range(2):
            answer = client.post(
                f"{address}/admin/clear",
                content=iter([body]) if chunked else body,
                headers={"authorization": f"Bearer {TOKEN}", "content-type": "application/json"},
            )
            assert answer.json()["reach"] == "this process only"
