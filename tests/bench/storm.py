"""Five thousand users who miss together, on the real Supabase stack: how many calls of the source they cost."""

from __future__ import annotations

import time

import anyio
import psycopg

from ctxmiddleware import CachePolicy, ContextPlugin, UserContext
from ctxmiddleware.sources.supabase import SupabaseSource
from examples.servers import Postgres, SupabaseProject, create_roles

USERS = 5000
POLICY = CachePolicy()


def fill(project: SupabaseProject, users: int) -> list[str]:
    """Write so many employees with two slots each, and return their addresses."""
    emails = [f"user{number}@example.org" for number in range(users)]
    with psycopg.connect(project.dsn, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("insert into hr.regions select n, 'R' || n, 'Region ' || n from generate_series(1, 8) n")
        cursor.execute(
            "insert into hr.slots select n, 'S' || n, 'Slot ' || n, n % 8 + 1 from generate_series(1, 200) n"
        )
        cursor.execute(
            "insert into hr.employees select n + 1, 'user' || n || '@example.org', 'User ' || n, null, 'rep', true "
            "from generate_series(0, %s) n",
            (users - 1,),
        )
        cursor.execute(
            "insert into hr.assignments select n, (n + 1) / 2, n %% 200 + 1, n %% 2 = 0, '2024-01-01', null "
            "from generate_series(1, %s) n",
            (2 * users,),
        )
        cursor.execute("analyze")
    return emails


async def _ask(plugin: ContextPlugin[UserContext], emails: list[str], per_second: float | None) -> float:
    began = time.perf_counter()
    async with anyio.create_task_group() as callers:
        for number, email in enumerate(emails):
            callers.start_soon(plugin.resolve, email)
            if per_second is not None and number % 10 == 9:
                await anyio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
    return time.perf_counter() - began


async def _one(plugin: ContextPlugin[UserContext], emails: list[str], per_second: float | None) -> float:
    async with plugin:
        return await _ask(plugin, emails, per_second)


def run(users: int = USERS, policy: CachePolicy = POLICY) -> list[dict[str, object]]:
    """Return what each way of arriving costs: calls at the front, the most at a time, and seconds."""
    found: list[dict[str, object]] = []
    with Postgres.start(locale="C") as postgres:
        create_roles(postgres)
        with SupabaseProject.start(postgres, database="storm") as project:
            emails = fill(project, users)
            with project.front("16") as front:
                for name, per_second in (("all at once", None), ("1,000 a second", 1000.0)):
                    front.reset()
                    source = SupabaseSource(front.url, front.secret_key)
                    plugin = ContextPlugin(source=source, policy=policy)
                    seconds = anyio.run(_one, plugin, emails, per_second)
                    counts = front.counts()
                    found.append(
                        {
                            "arriving": name,
                            "users": users,
                            "calls": counts.requests,
                            "most at a time": counts.most_under_way,
                            "seconds": round(seconds, 2),
                        }
                    )
    return found
