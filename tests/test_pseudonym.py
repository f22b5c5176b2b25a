"""What stands for users in logs, and whether an operator can compute it."""

from __future__ import annotations

import hashlib
import hmac
import io
import logging

import pytest

from ctxmiddleware import ConfigurationError, ContextPlugin, Identity, Secret, UserContextMiddleware
from ctxmiddleware.cli import main
from ctxmiddleware.pseudonym import Pseudonyms

from .asgi import ask, http_scope, no_lifespan
from .people import ADA, BROKEN, DOWN, MALFORMED, plugin_of

KEY = "a-key-of-the-logs"


def test_it_is_a_keyed_hash_of_the_address_in_any_spelling() -> None:
    """HMAC-SHA-256 of `e` and what the e-mail rule makes of it, in any tenant: any tool can compute it with the key."""
    expected = hmac.new(KEY.encode(), f"e{ADA}".encode(), hashlib.sha256).hexdigest()[:16]
    for key in (KEY, Secret(KEY)):
        assert Pseudonyms(key).of(Identity(f" {ADA.upper()}\t")) == expected
    assert Pseudonyms(KEY).of(Identity(ADA, tenant="acme", subject="7")) == expected
    assert Pseudonyms(KEY + "x").of(Identity(ADA)) != expected


def test_a_subject_is_hashed_byte_for_byte_and_is_no_address() -> None:
    """HMAC-SHA-256 of `s` and the subject as it is."""
    for subject in (ADA, ADA.upper(), " 7"):
        expected = hmac.new(KEY.encode(), f"s{subject}".encode(), hashlib.sha256).hexdigest()[:16]
        assert Pseudonyms(KEY).of(Identity(subject=subject, tenant="acme")) == expected
        assert Pseudonyms(KEY).of(Identity(subject)) != expected


def test_without_a_key_each_process_has_its_own() -> None:
    """Nobody else can compute it, and one user is one and the same in it."""
    one, other = Pseudonyms(), Pseudonyms()
    assert one.of(Identity(ADA)) == one.of(Identity(ADA))
    assert one.of(Identity(ADA)) != other.of(Identity(ADA))
    assert ADA not in repr(one)


def test_a_key_that_could_be_guessed_is_refused() -> None:
    """With a short one whoever reads the logs tries out keys until a known user's line fits."""
    with pytest.raises(ConfigurationError, match="log_key is shorter than 16 bytes"):
        plugin_of(log_key="short")
    with pytest.raises(ConfigurationError, match="log_key is shorter"):
        Pseudonyms(Secret("fifteen-bytes-k"))


def test_the_command_prints_what_the_application_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For addresses given as words, or one a line; with the variable the application reads."""
    monkeypatch.setenv("CTX_LOG_KEY", KEY)
    expected = f"{Pseudonyms(KEY).of(Identity(ADA))}  "
    assert main(["hash", ADA, ADA.upper()]) == 0
    assert capsys.readouterr().out == f"{expected}{ADA}\n{expected}{ADA.upper()}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ADA}\n\n  {ADA} \n"))
    assert main(["hash"]) == 0
    assert capsys.readouterr().out == f"{expected}{ADA}\n{expected}  {ADA} \n"
    environ = {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_KEY": "sb_secret_x", "CTX_LOG_KEY": KEY}
    assert ContextPlugin.from_env(environ).pseudonyms.of(Identity(ADA)) == expected.strip()


def test_the_command_hashes_subjects_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte, as words or from standard input, with the white space around them."""
    monkeypatch.setenv("CTX_LOG_KEY", KEY)
    subjects = ["aB3", "Ab3", ADA, " 7"]
    hashes = [Pseudonyms(KEY).of(Identity(subject=each)) for each in subjects]
    expected = "".join(f"{hashed}  {subject}\n" for hashed, subject in zip(hashes, subjects, strict=True))
    assert main(["hash", "--subject", *subjects]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*subjects[:2], "", *subjects[2:]])))
    assert main(["hash", "--subject"]) == 0
    assert capsys.readouterr().out == expected
    assert len({*hashes, Pseudonyms(KEY).of(Identity(ADA))}) == 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([""], "no user was given"),
        ([" ", "\t"], "no user was given"),
        (["--subject", ""], "no user was given"),
        ([], "no user was given"),
        ([ADA, "", ADA], "user 2 of 3 is blank: name each by an address or a subject"),
        (["--subject", "aB3", " "], "user 2 of 2 is blank"),
        ([ADA, "ada\udcff@example.org"], "Identity.email is not UTF-8 text"),
        (["ada\udcff@example.org"], "Identity.email is not UTF-8 text"),
        (["--subject", "x" * 256], "Identity.subject has 256 bytes; 255 are the most"),
    ],
)
def test_the_command_needs_a_user(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What names no user is an error with status 2, and prints nothing that could be taken for a hash."""
    monkeypatch.setenv("CTX_LOG_KEY", KEY)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n \n"))
    assert main(["hash", *words]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"ctxmiddleware: {told}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize(("key", "told"), [("", "CTX_LOG_KEY is not set"), ("short", "CTX_LOG_KEY held a value that")])
def test_the_command_says_what_it_needs(
    key: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And shows nothing of a key that is no good."""
    monkeypatch.setenv("CTX_LOG_KEY", key)
    assert main(["hash", ADA]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""


@pytest.mark.anyio
@pytest.mark.parametrize("user", [DOWN, BROKEN, MALFORMED])
async def test_a_refusal_that_was_nobody_s_wish_says_whose_it_was(user: str, caplog: pytest.LogCaptureFixture) -> None:
    """So that an operator can tell whether it is one user's trouble or everybody's, without reading who they are."""
    plugin = plugin_of(log_key=KEY)
    await ask(UserContextMiddleware(no_lifespan, plugin=plugin), http_scope(user=user))
    (record,) = [each for each in caplog.records if each.name == "ctxmiddleware.refusals"]
    assert vars(record)["user"] == Pseudonyms(KEY).of(Identity(user))
    assert user not in caplog.text


@pytest.mark.anyio
async def test_invalidations_and_what_was_not_warmed_say_whose(caplog: pytest.LogCaptureFixture) -> None:
    """And a clear that it is everybody's."""
    caplog.set_level(logging.INFO, "ctxmiddleware.resolver")
    plugin = plugin_of(log_key=KEY)
    await plugin.invalidate(ADA.upper())
    await plugin.clear()
    await plugin.warm([Identity(DOWN)])
    users = [vars(record)["user"] for record in caplog.records if hasattr(record, "user")]
    assert users == [Pseudonyms(KEY).of(Identity(ADA)), None, Pseudonyms(KEY).of(Identity(DOWN))]
