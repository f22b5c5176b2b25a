"""Whether a Redis URL is read as it is meant."""

from __future__ import annotations

import pytest

from ctxmiddleware.cache.redis.servers.target import Kind, Place, Target, target_of
from ctxmiddleware.secret import Secret


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:1/2?a=b", "unix:///run/s?db=3"])
def test_a_url_of_one_server_is_left_as_it_is(url: str) -> None:
    """The driver reads it by itself."""
    assert target_of(Secret(url)) == Target(Secret(url))


def test_sentinels_are_asked_for_a_service_and_spoken_to_by_their_own_name() -> None:
    """User, password and options before the hosts are the master's; TLS and the other options are for both."""
    url = "REDISS+Sentinel://u:p%40w@a,[::1]:2,c:3/my%20service/4?sentinel_password=s%2Fx&ssl_cert_reqs=none"
    assert target_of(Secret(url)) == Target(
        Secret("rediss://u:p%40w@a:26379/4?ssl_cert_reqs=none"),
        Kind.SENTINEL,
        (Place("a", 26379), Place("::1", 2), Place("c", 3)),
        "my service",
        Secret("rediss://:s%2Fx@a:26379/0?ssl_cert_reqs=none"),
    )


def test_sentinels_without_a_password_are_sent_none() -> None:
    """The master's is not theirs."""
    target = target_of(Secret("redis+sentinel://u:p@[::1]:2/service"))
    assert target.url == Secret("redis://u:p@[::1]:2/0")
    assert target.places_url == Secret("redis://[::1]:2/0")


@pytest.mark.parametrize("end", ["", "/", "/0", "?db=0"])
def test_a_cluster_has_nodes_and_no_service(end: str) -> None:
    """Its only database may be named."""
    target = target_of(Secret(f"redis+cluster://:pw@a,b:1{end}"))
    query = end if "?" in end else ""
    assert target == Target(Secret(f"redis://:pw@a:6379/0{query}"), Kind.CLUSTER, (Place("a", 6379), Place("b", 1)))
