"""What claims are refused for, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxmiddleware import Identity
from ctxmiddleware.identity.jwt.rules import BadToken, Rules

NOW = 1000.0
RULES = Rules("https://issuer.example", {"api"}, 0.0, "email", "email", None)
CLAIMS = {"iss": "https://issuer.example", "aud": "api", "email": "ada@example.org", "exp": NOW + 60}


def test_all_that_is_asked_for_names_the_user() -> None:
    """Until the token expires."""
    assert RULES.identity(CLAIMS, NOW) == Identity("ada@example.org", expires_at=NOW + 60)


@pytest.mark.parametrize(
    "issuer", [None, "https://other.example", "https://issuer.example/", ["https://issuer.example"]]
)
def test_a_token_of_another_issuer_names_nobody_here(issuer: object) -> None:
    """Its key may be known: several issuers may share one document of keys."""
    with pytest.raises(BadToken, match="another issuer"):
        RULES.identity({**CLAIMS, "iss": issuer}, NOW)
    assert replace(RULES, issuer=None).identity({**CLAIMS, "iss": issuer}, NOW).email == "ada@example.org"
