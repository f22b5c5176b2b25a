"""What nobody may do to the admin, whatever is made up: methods, paths, headers, bodies and peers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Scope

from ctxmiddleware import BearerToken, ContextRule, UserContextMiddleware, any_of
from ctxmiddleware.admin.app import AdminApp
from ctxmiddleware.admin.attempts import Attempts

from ..asgi import Answer, http_scope
from ..matrix import Cases
from ..people import ADA, BOB, TOKEN, plugin_of

_SITES = ["same-origin", "same-site", "cross-site", "none", "", "same-origin ", "SAME-ORIGIN"]
_ORIGINS = [
    "https://app.example", "http://app.example", "https://mallory.example", "null", "", "https://app.example:444",
    "https://app.example.mallory.example", "https://mallory.example/app.example", "https://app.example@mallory.example",
]  # fmt: skip
_HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just("sec-fetch-site"), st.sampled_from(_SITES)),
        st.tuples(st.just("origin"), st.sampled_from(_ORIGINS)),
        st.tuples(st.just("host"), st.sampled_from(["app.example", "mallory.example", "10.0.0.3:8000"])),
        st.tuples(st.just("x-requested-with"), st.sampled_from(["", "x", "XMLHttpRequest"])),
        st.tuples(
            st.just("authorization"), st.sampled_from(["Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer ,"])
        ),
        st.tuples(st.sampled_from(["cookie", "x-token", "x-forwarded-host", "x-http-method-override"]), st.just(TOKEN)),
    ),
    max_size=5,
)
_OWN = st.sampled_from(
    [[], [("sec-fetch-site", "same-origin")], [("origin", "https://app.example"), ("host", "app.example")]]
)
_METHODS = st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "post", "\x00"])
_PATHS = st.one_of(
    st.sampled_from(["/clear", f"/invalidate/{BOB}", "/invalidate", "/stats", "/clear/", "//clear", "/stats/../clear"]),
    st.text(max_size=20).map(lambda text: f"/{text}"),
)


def _is_forged(headers: list[tuple[str, str]]) -> bool:
    """Return whether a page of another site may have made a browser send this."""
    given = {wanted: [value for name, value in headers if name == wanted] for wanted, _ in headers}
    sites, origins = given.get("sec-fetch-site", []), given.get("origin", [])
    if len(sites) > 1 or len(origins) > 1 or any(site != "same-origin" for site in sites):
        return True
    if sites:
        return False
    if origins:
        hosts = given.get("host", [])
        return origins[0] not in [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return not any(given.get("x-requested-with", []))


async def _ask(app: Any, scope: Scope, body: bytes) -> Answer:
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    await app(scope, receive, answer.send)
    return answer


def _sent(
    counts: Counter[str], method: str, path: str, headers: list[tuple[str, str]], user: str | None, body: bytes
) -> None:
    async def run() -> None:
        rule = ContextRule[Any](lambda context: context.email == ADA)
        plugin = plugin_of(admin_guard=rule)
        admin = AdminApp(plugin, any_of(BearerToken(TOKEN), rule), attempts=Attempts(burst=3, every=60))
        app = UserContextMiddleware(admin, plugin=plugin)
        for each in (ADA, BOB):
            await plugin.resolve(each)
        before = plugin.stats().memory.entries
        scope = http_scope(path, user=user, method=method)
        scope["headers"] = [*scope["headers"], *((name.encode(), value.encode()) for name, value in headers)]
        answer = await _ask(app, scope, body)
        counts[str(answer.status)] += 1
        forgot = plugin.stats().memory.entries < before
        assert answer.status in (200, 400, 401, 403, 404, 405)
        assert (answer.headers["content-type"] == "application/json") == (answer.status == 200)
        if user != ADA:
            assert answer.status == 401
        if forgot:
            assert (user, method) == (ADA, "POST")
            assert not _is_forged(headers)
            counts["forgot"] += 1

    anyio.run(run)


def test_nobody_lets_another_s_page_forget_anybody(record_property: Any, cases: Cases) -> None:
    """Nobody but the one the rule names is let in, and she only from her own site; no exception comes out."""
    counts: Counter[str] = Counter()
    examples = 1500 if cases is Cases.FULL else 250

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        method=_METHODS,
        path=_PATHS,
        headers=st.tuples(_OWN, _HEADERS).map(lambda both: [*both[0], *both[1]]),
        user=st.sampled_from([ADA, ADA, BOB, None]),
        body=st.one_of(st.binary(max_size=30), st.just(b'{"email": "%s"}' % BOB.encode())),
    )
    @example("POST", "/clear", [("sec-fetch-site", "same-origin")], ADA, b"")
    def fuzz(method: str, path: str, headers: list[tuple[str, str]], user: str | None, body: bytes) -> None:
        _sent(counts, method, path, headers, user, body)

    fuzz()
    for status, count in counts.items():
        record_property(f"admin fuzzing, {status}", count)
    # It has to have been able to fail: some of them were right.
    assert counts["forgot"] > 0
    assert counts["401"] > examples // 15
    assert counts["403"] > examples // 15
