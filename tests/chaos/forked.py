"""A child that the app forks while its plugin is open: it resolves users by what was copied, and ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ctxmiddleware import ContextPlugin, Identity, SourceUnavailable, UserContext

Show = Callable[[UserContext], dict[str, object]]

_CALLERS: Final = 4
# A child that is not open yet asks memory alone at first: what was copied would be trusted for less.
_PEEKS: Final = 2.5
# Past its seconds a child may still wait for an answer, and for its plugin to close; then it is ended.
_LATEST: Final = 20.0


@dataclass(frozen=True)
class Plan:
    """The task of a child.

    Args:
        answers: the file it writes at its end.
        seconds: how long it asks.
        users: the addresses that it asks for.
        closes: whether it closes its plugin, or ends as one that was killed.
        port: that its parent serves.
    """

    answers: Path
    seconds: float
    users: list[str]
    closes: bool
    port: int


def fork(plugin: ContextPlugin[UserContext], show: Show, port: int) -> Route:
    """Return the route that forks a child, and answers with its process id.

    Args:
        plugin: what the child resolves users by.
        show: returns the fields of a context that an answer contains.
        port: that this process serves.
    """
    reaping: set[asyncio.Task[None]] = set()

    async def endpoint(request: Request) -> Response:
        asked = request.query_params
        users, closes = asked["users"].split(","), asked["closes"] == "yes"
        pid = _fork(plugin, show, Plan(Path(asked["answers"]), float(asked["seconds"]), users, closes, port))
        task = asyncio.create_task(_reap(pid))
        reaping.add(task)
        task.add_done_callback(reaping.discard)
        return JSONResponse({"pid": pid})

    return Route("/private/fork", endpoint)


async def _reap(pid: int) -> None:
    while True:
        if _has_ended(pid):
            return
        await asyncio.sleep(0.1)


def _has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) != (0, 0)


def _fork(plugin: ContextPlugin[UserContext], show: Show, plan: Plan) -> int:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of every fork in a process that has threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        _be_a_child(plugin, show, plan)
    return pid


def _be_a_child(plugin: ContextPlugin[UserContext], show: Show, plan: Plan) -> NoReturn:
    try:
        began_at = time.monotonic()
        # Signals would wake the event loop of the parent.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(math.ceil(plan.seconds + _LATEST))
        _part_from_clients(plan.port)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(_ask(plugin, show, plan, began_at))
    except BaseException:  # noqa: BLE001 - it is found in the log
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _part_from_clients(port: int) -> None:
    """Let go of the parent's clients and of its port: they must not outlast the parent. Its other sockets stay."""
    with Path(os.devnull).open() as nothing:
        for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
            with contextlib.suppress(OSError), socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as copy:
                if copy.getsockname()[1:2] == (port,):
                    os.dup2(nothing.fileno(), fd)


async def _ask(plugin: ContextPlugin[UserContext], show: Show, plan: Plan, began_at: float) -> None:
    until, answers = time.monotonic() + plan.seconds, list[dict[str, Any]]()
    rng = random.Random(os.getpid())

    peeks_until = 0.0 if plan.closes else began_at + _PEEKS

    async def call() -> None:
        while time.monotonic() < until:
            user = int(len(plan.users) * rng.random() ** 2)
            asked_at = time.monotonic()
            answer = await _answer(plugin, show, plan.users[user], peeks=asked_at < peeks_until)
            answers.append({"user": user, "asked_at": asked_at, "read_at": time.monotonic(), **answer})
            await asyncio.sleep(rng.uniform(0, 0.4 if answer.get("failed") == "unavailable" else 0.04))

    async with contextlib.AsyncExitStack() as exits:
        if plan.closes:
            await exits.enter_async_context(plugin)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_CALLERS):
                tasks.create_task(call())
        # At once: whether the plugin closes is another matter.
        part = plan.answers.with_suffix(".part")
        part.write_text(json.dumps({"began_at": began_at, "answers": answers}))
        part.replace(plan.answers)
        if not plan.closes:
            os._exit(0)


async def _answer(plugin: ContextPlugin[UserContext], show: Show, address: str, *, peeks: bool) -> dict[str, Any]:
    try:
        found = plugin.peek(Identity(address)) if peeks else await plugin.resolve(address)
    except SourceUnavailable:
        return {"failed": "unavailable"}
    except Exception as error:  # noqa: BLE001 - it is judged by the run
        return {"failed": repr(error)}
    if found is None:
        return {"failed": "not in memory"}
    context = found.context
    reason = "unknown" if context is None else None if plugin.is_active(context) else "inactive"
    shown = None if context is None else show(context)
    return {"pid": os.getpid(), "reason": reason, "stale": found.stale, "context": shown}
