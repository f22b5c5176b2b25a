"""Whether the front checks keys as Supabase's gateway does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.servers import SupabaseFront, SupabaseProject
from examples.servers.supabase.keys import signed

from .http import Answer, ask

PATH = "/rest/v1/regions"


@pytest.fixture(autouse=True)
def regions(supabase: SupabaseProject) -> Iterator[None]:
    """One row that service_role may read and nobody else."""
    supabase.execute("INSERT INTO hr.regions VALUES (1, 'N', 'North')")
    yield
    supabase.execute("DELETE FROM hr.regions")


def read(front: SupabaseFront, **headers: str) -> Answer:
    """Read the regions with these headers."""
    return ask(front.port, PATH, headers={"Accept-Profile": "hr"} | headers)


def bearer(token: str) -> str:
    """Return the value of an Authorization header."""
    return f"Bearer {token}"


def test_a_secret_key_alone_is_service_role(front: SupabaseFront) -> None:
    """`sb_secret_...` in `apikey` is enough, and reads what service_role may read."""
    assert read(front, apikey=front.secret_key).json() == [{"id": 1, "code": "N", "name": "North"}]


def test_a_legacy_service_key_needs_the_authorization_header(front: SupabaseFront) -> None:
    """The legacy key opens the gateway by `apikey`, and PostgREST by `Authorization`."""
    alone = read(front, apikey=front.service_key)
    assert (alone.status, alone.json()["code"]) == (401, "42501")
    both = read(front, apikey=front.service_key, Authorization=bearer(front.service_key))
    assert both.status == 200


@pytest.mark.parametrize("key", ["anon", "publishable"])
def test_keys_for_everybody_read_nothing(front: SupabaseFront, key: str) -> None:
    """The anonymous keys pass the gateway and get no further than their role's grants."""
    answer = read(front, apikey=getattr(front.keys, key))
    assert answer.json()["code"] == "42501"


def test_a_user_s_own_token_goes_before_the_key(front: SupabaseFront) -> None:
    """With a new key and a user's token the user's role decides."""
    token = signed(front.keys.jwt_secret, role="authenticated")
    answer = read(front, apikey=front.secret_key, Authorization=bearer(token))
    assert (answer.status, answer.json()["code"]) == (403, "42501")


def test_a_secret_key_is_no_token(front: SupabaseFront) -> None:
    """`sb_secret_...` in the Authorization header is refused: it is not a JWT."""
    answer = read(front, apikey=front.secret_key, Authorization=bearer(front.secret_key))
    assert (answer.status, answer.json()["code"]) == (401, "PGRST301")


def test_without_a_key_nothing_passes(front: SupabaseFront) -> None:
    """A missing key is the gateway's own 401, without a PostgREST code."""
    answer = read(front, Authorization=bearer(front.service_key))
    assert answer.status == 401
    assert answer.json()["message"] == "No API key found in request"
    assert front.counts().refused == 1


@pytest.mark.parametrize("key", ["sb_secret_other", "", "é"])
def test_a_wrong_key_does_not_pass(front: SupabaseFront, key: str) -> None:
    """An unknown key is the gateway's own 401."""
    answer = read(front, apikey=key)
    assert (answer.status, answer.json()["message"]) == (401, "Invalid API key")


def test_other_paths_have_no_route(front: SupabaseFront) -> None:
    """What does not begin with the prefix does not reach PostgREST."""
    answer = ask(front.port, "/regions", headers={"apikey": front.secret_key})
    assert (answer.status, answer.json()) == (404, {"message": "no Route matched with those values"})


def test_a_read_replica_refuses_to_be_written_to(supabase: SupabaseProject) -> None:
    """A front that stands for a replica answers GET, and refuses POST with a code of PostgreSQL's."""
    with supabase.front("16", read_only=True) as replica:
        assert read(replica, apikey=replica.secret_key).status == 200
        headers = {"apikey": replica.secret_key, "Content-Profile": "hr"}
        body = {"p_email": "a@b.c"}
        path = "/rest/v1/rpc/get_user_context_by_email"
        refused = ask(replica.port, path, method="POST", headers=headers, body=body)
        assert (refused.status, refused.json()["code"]) == (405, "25006")
        headers = {"apikey": replica.secret_key, "Accept-Profile": "hr"}
        assert ask(replica.port, f"{path}?p_email=a@b.c", headers=headers).body == b"null"


def test_with_postgrest_gone_the_gateway_says_so(supabase: SupabaseProject) -> None:
    """A gateway that reaches nobody answers 502 in its own words."""
    with SupabaseFront.start("http://127.0.0.1:1", keys=supabase.keys) as front:
        answer = read(front, apikey=front.secret_key)
    assert answer.status == 502
    assert "code" not in answer.json()
