"""Whether all spellings of a project's address are one project, for its source, its tokens and its keys in Redis."""

from __future__ import annotations

import time

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from ctxmiddleware import ConfigurationError, ContextPlugin, Identity, SupabaseSource
from ctxmiddleware.project import Project
from ctxmiddleware.testing import StaticSource

ROOT = "https://abc.supabase.co"
SPELLINGS = (
    ROOT,
    f"{ROOT}/",
    f"{ROOT}//",
    f"{ROOT}/rest/v1",
    f"{ROOT}/rest/v1/",
    f"{ROOT}:443",
    f"{ROOT}:443/rest/v1/",
    f"{ROOT}:/",
    "https://ABC.Supabase.CO",
    "HTTPS://abc.supabase.co",
    "HTTPS://ABC.SUPABASE.CO:443/rest/v1/",
    f"  {ROOT}/rest/v1  ",
)
SECRET = "a secret of more than 32 bytes, for HS256"
KEY = "sb_secret_example"


@pytest.mark.parametrize("url", SPELLINGS)
def test_a_users_token_is_verified_for_every_spelling_of_the_address(url: str) -> None:
    """The issuer is the project's, whatever else the address in the environment holds, and no other issuer is."""
    plugin = ContextPlugin.from_env({"SUPABASE_URL": url, "SUPABASE_KEY": KEY, "SUPABASE_JWT_SECRET": SECRET})

    def identified(issuer: str) -> object:
        claims = {"email": "ada@example.org", "exp": time.time() + 60, "iss": issuer, "aud": "authenticated"}
        token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))
        return plugin.identify({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]})

    assert isinstance(identified(f"{ROOT}/auth/v1"), Identity)
    assert identified(f"{ROOT}/rest/v1/auth/v1") is None
    assert identified("https://abd.supabase.co/auth/v1") is None


@pytest.mark.parametrize("url", SPELLINGS)
def test_two_instances_share_their_entries_for_every_spelling_of_the_address(url: str) -> None:
    """The label that keeps databases apart in Redis is the same, also for the replica's address in `repr`."""
    source = SupabaseSource(url.strip(), KEY, read_url=url.strip())
    assert source.label == SupabaseSource(ROOT, KEY).label == f"{ROOT}/rest/v1 hr"
    assert repr(source).count(f"{ROOT}/rest/v1,") == 2


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:54321/", "http://127.0.0.1:54321"),
        ("http://KONG:80/rest/v1", "http://kong"),
        ("http://kong:443", "http://kong:443"),
        ("https://kong:80", "https://kong:80"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_a_port_that_is_not_the_schemes_own_belongs_to_the_address(url: str, origin: str) -> None:
    """Every root of the project has it."""
    project = Project.parse(url)
    assert project == Project(origin)
    assert (project.rest, project.issuer) == (f"{origin}/rest/v1", f"{origin}/auth/v1")
    assert project.jwks_url == f"{origin}/auth/v1/.well-known/jwks.json"
    assert Project.parse(project) == project


@pytest.mark.parametrize("path", ["/auth/v1", "/rest/v2", "/x/rest/v1", "//rest/v1", "/REST/v1", "/rest/v1?apikey=x"])
@pytest.mark.parametrize("variable", ["SUPABASE_URL", "SUPABASE_READ_URL"])
def test_an_address_with_another_path_is_refused_whatever_the_source(variable: str, path: str) -> None:
    """Also where only the issuer of tokens is made of it; the message names the variable."""
    environ = {"SUPABASE_URL": ROOT, variable: f"{ROOT}{path}", "SUPABASE_JWT_SECRET": SECRET}
    source: StaticSource[object] = StaticSource({})
    with pytest.raises(ConfigurationError, match=f"^{variable} held .*/rest/v1"):
        ContextPlugin.from_env(environ, source=source)
