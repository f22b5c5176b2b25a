"""One of the four processes: an app that tells whose context it got, in which version, and how it is doing itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, cast

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ctxmiddleware import (
    ContextPlugin,
    Identity,
    PoolOptions,
    RedisOptions,
    Resolution,
    SupabaseSource,
    UserContext,
    UserContextMiddleware,
)
from ctxmiddleware.cache.redis import announcing, channel
from ctxmiddleware.plugin_options import arguments_from_env

from .forked import fork

PORT, LOOP, REDIS_SECONDS = "CHAOS_PORT", "CHAOS_LOOP", "CHAOS_REDIS_SECONDS"
LISTED_SECONDS = "CHAOS_LISTED_SECONDS"
ADMIN = "/api/admin/cache"
CLOSED_REQUEST = 499

_resolved: ContextVar[Resolution[UserContext] | None] = ContextVar("resolved", default=None)


class Noting(ContextPlugin[UserContext]):
    """A plugin that lets the app see whether the context on its request is stale, and who is barred."""

    def peek(self, identity: Identity) -> Resolution[UserContext] | None:
        """Note what memory answers."""
        found = super().peek(identity)
        _resolved.set(found)
        return found

    async def resolve(self, email_or_identity: str | Identity) -> Resolution[UserContext]:
        """Note what is answered in the end."""
        found = await super().resolve(email_or_identity)
        _resolved.set(found)
        return found


class OneDatabase(SupabaseSource):
    """The database all processes read, each by a proxy of its own: what one of them has stored is the others' too."""

    @property
    def label(self) -> str:
        """What it is called in Redis."""
        return "the one database"


class Impatient:
    """Cancels a request after the seconds it names itself, as a host does whose client has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        patience = dict(scope.get("headers") or ()).get(b"x-patience")
        if patience is None:
            await self.app(scope, receive, send)
            return
        with anyio.move_on_after(float(patience)) as limit:

            async def begun(message: Message) -> None:
                # Half an answer would be a fault of ours.
                limit.deadline = float("inf")
                await send(message)

            await self.app(scope, receive, begun)
        if limit.cancelled_caught:
            await Response(status_code=CLOSED_REQUEST)(scope, receive, send)


def by_header(scope: Scope) -> Identity | None:
    """Take the word of a header for who asks: nobody but the test reaches this app."""
    asks = dict(scope["headers"]).get(b"x-asks")
    return None if asks is None else Identity(asks.decode("latin-1"))


def me(plugin: ContextPlugin[UserContext]) -> Route:
    """Return the route that tells who asked, and whose context it got."""

    async def endpoint(request: Request) -> Response:
        redis = plugin.stats().redis
        # Look-ups that Redis did not answer: from the source's side nobody sees them.
        unanswered = 0 if redis is None else redis.faults + redis.busy
        return _told(request, unanswered)

    return Route("/me", endpoint)


def _told(request: Request, unanswered: int) -> Response:
    found: UserContext | None = request.scope["user_context"]
    resolution = _resolved.get()
    shown = found if found is not None else None if resolution is None else resolution.context
    body = {
        "pid": os.getpid(),
        "nonce": request.headers.get("x-nonce"),
        "asked": request.headers.get("x-asks"),
        "reason": request.scope.get("user_context_refusal"),
        "unanswered": unanswered,
        "stale": resolution is not None and resolution.stale,
        "origin": None if resolution is None else resolution.origin,
        "context": None if shown is None else show(shown),
    }
    return JSONResponse(body, 403 if found is None else 200)


def show(context: UserContext) -> dict[str, object]:
    """Return the fields of a context that an answer contains."""
    return {
        "email": context.email,
        "employee": context.employee.id,
        "name": context.employee.full_name,
        "version": context.employee.job_title,
        "slots": [slot.code for slot in context.slots],
        "regions": [region.code for region in context.regions],
    }


async def level(request: Request) -> Response:
    """Tell how many tasks of each kind there are beside this one, and where its sockets lead."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    kinds = Counter(map(_kind, others))
    return JSONResponse({"pid": os.getpid(), "tasks": kinds, "sockets": _sockets()})


def _kind(task: asyncio.Task[object]) -> str:
    """Return what a task runs: its name, unless that is only a number or an address."""
    name = task.get_name()
    return getattr(task.get_coro(), "__qualname__", "?") if name.startswith("Task-") else name


def _sockets() -> Counter[int]:
    """Return the open sockets by the port they lead to, 0 for those that lead to none, as Linux shows them."""
    folder = Path("/proc/self/fd")
    leads_to = dict(_tcp()) if folder.exists() else {}
    found: Counter[int] = Counter()
    for entry in folder.iterdir() if folder.exists() else ():
        with contextlib.suppress(OSError):  # the one this listing is read by is gone
            kind, _, inode = os.readlink(entry).rstrip("]").partition(":[")
            if kind == "socket":
                found[leads_to.get(inode, 0)] += 1
    return found


def _tcp() -> Iterator[tuple[str, int]]:
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        yield fields[9], int(fields[2].partition(":")[2], 16)


def misses(plugin: ContextPlugin[UserContext]) -> Route:
    """Return the route that asks many times at once for one user, at a time of the clock all processes share."""

    async def ask(email: str) -> tuple[float, str]:
        began = time.monotonic()
        found = await plugin.resolve(email)
        return time.monotonic() - began, found.origin

    async def endpoint(request: Request) -> Response:
        asked = request.query_params
        await asyncio.sleep(max(0.0, float(asked["at"]) - time.monotonic()))
        answers = await asyncio.gather(*(ask(asked["email"]) for _ in range(int(asked["count"]))))
        origins = Counter(origin for _, origin in answers)
        return JSONResponse({"slowest": max(took for took, _ in answers), "origins": origins})

    return Route("/private/misses", endpoint)


class Lines(logging.Handler):
    """Writes one line of JSON a record, so that what nobody logged stands out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        line: dict[str, object] = {
            "level": record.levelname,
            "logger": record.name,
            "text": record.getMessage(),
            "errors": _causes(record.exc_info[1]) if record.exc_info else _named(record),
        }
        if record.exc_info:
            line["trace"] = logging.Formatter().formatException(record.exc_info)
        sys.stderr.write(json.dumps(line) + "\n")


def _named(record: logging.LogRecord) -> list[str]:
    named = getattr(record, "error_type", None)
    return named.split(", ") if isinstance(named, str) else []


def _causes(error: BaseException | None) -> list[str]:
    if error is None:
        return []
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [f"{type(error).__module__}.{type(error).__qualname__}", *(name for each in inner for name in _causes(each))]


def create_app() -> Starlette:
    """Build the app from environment variables."""
    pool = PoolOptions(
        max_connections=int(os.environ["DB_MAX_CONNECTIONS"]),
        pool_timeout=float(os.environ["DB_POOL_TIMEOUT"]),
        recycle=float(os.environ["DB_POOL_RECYCLE"]),
    )
    source = OneDatabase(os.environ["SUPABASE_URL"], os.environ["SUPABASE_KEY"], pool=pool)
    plugin = Noting(**arguments_from_env(os.environ, identify=by_header, source=source) | _redis_options())
    private = [Route("/private/level", level), misses(plugin), fork(plugin, show, int(os.environ[PORT]))]
    app = Starlette(routes=[me(plugin), *private, Mount(ADMIN, app=plugin.admin)])
    app.add_middleware(UserContextMiddleware, plugin=plugin, exclude=["/private"])
    app.add_middleware(Impatient)
    return app


def _redis_options() -> dict[str, RedisOptions]:
    """Return for how long Redis is waited for, where that is not as shipped."""
    if REDIS_SECONDS not in os.environ:
        return {}
    seconds = float(os.environ[REDIS_SECONDS])
    options = RedisOptions(
        timeout=seconds,
        pool_wait=seconds,
        invalidation_wait=seconds,
        confirm_timeout=seconds,
        lease=2 * seconds,
    )
    return {"redis_options": options}


def _be_listed_for(milliseconds: int) -> None:
    # As shipped it takes minutes until an instance that is cut off has left the list: longer than a run lasts.
    for module in (announcing, channel):
        vars(module)["LISTED_MS"] = milliseconds


def main() -> None:
    """Serve until told to end."""
    logging.basicConfig(handlers=[Lines()], level=logging.INFO)
    logging.captureWarnings(capture=True)
    _be_listed_for(int(1000 * float(os.environ[LISTED_SECONDS])))
    loop = cast("Literal['asyncio', 'uvloop']", os.environ[LOOP])
    uvicorn.run(
        create_app(),
        host="127.0.0.1",
        port=int(os.environ[PORT]),
        loop=loop,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        # Longer than the load lets a connection rest, so that one that is lost was lost by a fault.
        timeout_keep_alive=60,
    )


if __name__ == "__main__":
    main()
