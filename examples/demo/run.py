"""The demo from its first line to its last."""

from __future__ import annotations

import random
import secrets
import time
from contextlib import ExitStack

import httpx2
import psycopg

from ctxmiddleware import Employee
from examples.servers import ServerFailed
from examples.servers.ports import free_port

from . import rig
from .company import Company
from .comparison import Comparison, Pair, Traffic
from .load import Ask, Limits, LoadFailed
from .options import USUAL_PORT, Options, is_free
from .report import as_json, explained, invitation, machine, table
from .screen import Screen
from .served import App, serving
from .tokens import signed

_ZONES_WITHIN = 30.0
_COMPARED = 25
_SAMPLES = 3


def run(options: Options, screen: Screen) -> int:
    """Run the demo and return the process's exit status.

    Args:
        options: the command line.
        screen: where it is shown.
    """
    demo = _Demo(options, screen)
    try:
        with ExitStack() as exits:
            demo.show(exits)
        status = 0
    except KeyboardInterrupt:
        # A script that waits for the figures must not take an early end for them.
        status = 0 if demo.complete or not (options.exit or options.json) else 130
        screen.say("" if demo.complete else "\nStopped before the comparison was complete.")
    except BrokenPipeError:
        raise
    except (ServerFailed, LoadFailed, httpx2.HTTPError, psycopg.Error, OSError) as failure:
        # A server that ends under the demo is told as one that did not start.
        screen.say(f"\n{failure}")
        status = 1
    screen.say("Every server is stopped and every temporary file removed.")
    return status


class _Demo:
    """One run.

    Args:
        options: the command line.
        screen: where it is shown.
    """

    def __init__(self, options: Options, screen: Screen) -> None:
        self.complete = False
        self._options = options
        self._screen = screen
        self._secret = secrets.token_urlsafe(32)
        self._admin_token = secrets.token_urlsafe(18)
        self._company = Company.invented(options.employees, seed=options.seed)
        chance = random.Random(options.seed)  # noqa: S311 - traffic, no secrets
        *self._online, self._warm_up = chance.sample(self._company.active, options.online + 1)

    def show(self, exits: ExitStack) -> None:
        """Start everything, compare, and serve until the app or the person ends it.

        Args:
            exits: ends what was started.

        Raises:
            ServerFailed: something that the demo cannot do without cannot run here.
            LoadFailed: an app gave a wrong answer, or none.
        """
        self._screen.say(machine())
        servers = exits.enter_context(rig.running(self._screen, self._company, self._options.without))
        before_start = servers.warehouse_calls()
        after = self._started(exits, servers, "with", "app")
        preloaded = servers.warehouse_calls() - before_start
        with ExitStack() as meanwhile:
            before = self._started(meanwhile, servers, "without", "before")
            self._check_equal(before, after)
            self._compare(servers, before, after, preloaded)
        self.complete = True
        if not self._options.exit:
            self._serve(after)

    def _started(self, exits: ExitStack, servers: rig.Rig, name: str, module: str) -> App:
        """Start an app; its zones are there when this returns."""
        environ = servers.environ() | {"TOKEN_SECRET": self._secret, "CTX_ADMIN_TOKEN": self._admin_token}
        is_after = module == "app"
        with self._screen.step(f"App {name} the middleware") as step:
            choose_port = self._port if is_after else free_port
            app = exits.enter_context(
                serving(f"The app {name} the middleware", f"examples.demo.{module}", environ, choose_port=choose_port)
            )
            zones = f", {_zones_of(app)} zones preloaded" if is_after and servers.warehouse is not None else ""
            step.detail = f"port {app.port}{zones}"
        return app

    def _port(self) -> int:
        if self._options.port is not None:
            return self._options.port
        return USUAL_PORT if is_free(USUAL_PORT) else free_port()

    def _check_equal(self, before: App, after: App) -> None:
        """Compare the answers of both byte by byte, for people of all kinds."""
        people = [*self._online[:_COMPARED], *_unusual(self._company)]
        with self._screen.step("The same answers from both") as step:
            for person in people:
                token = signed(person.email, self._secret)
                ours, theirs = after.get("/me", token), before.get("/me", token)
                if (ours.status_code, ours.content) != (theirs.status_code, theirs.content):
                    raise LoadFailed(
                        f"the apps disagree: {theirs.status_code} {theirs.text} without the middleware, "
                        f"{ours.status_code} {ours.text} with it"
                    )
            step.detail = f"byte by byte, {len(people)} people"

    def _compare(self, servers: rig.Rig, before: App, after: App, preloaded: int) -> None:
        options = self._options
        traffic = Traffic(self._online, self._secret, options.seed)
        warm_up = Ask.me(self._warm_up.email, signed(self._warm_up.email, self._secret))
        limits = Limits(options.requests, options.seconds, options.concurrency)
        comparison = Comparison(servers, self._screen, traffic, warm_up, limits)
        calls, commits = servers.database_calls(), servers.commits()
        local = comparison.pair("", before, after, preloaded=preloaded)
        servers.far_away(options.wan_ms)
        wan = comparison.pair("WAN ", before, after)
        servers.far_away(0)
        calls, commits = servers.database_calls() - calls, servers.commits() - commits
        self._report(local, wan, calls, commits)

    def _report(self, local: Pair, wan: Pair, calls: int, commits: int) -> None:
        options = self._options
        self._screen.show(table(local, wan))
        self._screen.say(explained(local, wan, options, calls=calls, commits=commits))
        if options.json is not None:
            options.json.write(as_json(local, wan))
            self._screen.say(f"Written to {options.json}.")

    def _serve(self, app: App) -> None:
        samples = [(person, signed(person.email, self._secret)) for person in self._online[:_SAMPLES]]
        self._screen.say(invitation(app.url, samples, self._admin_token))
        while app.running:
            time.sleep(0.2)
        raise ServerFailed("The app with the middleware", "it ended by itself", app.said())


def _zones_of(app: App) -> int:
    """Wait until the app has read the zones, which its start does not wait for, and return their number."""
    end = time.monotonic() + _ZONES_WITHIN
    while (zones := app.stats()["zones"])["state"] != "ready":
        if time.monotonic() > end:
            raise ServerFailed("The app with the middleware", "it has not read the zones", app.said())
        time.sleep(0.02)
    return int(zones["count"])


def _unusual(company: Company) -> list[Employee]:
    """Return somebody who may not sign in, somebody who works on nothing, and somebody nobody knows."""
    assigned = {assignment.employee_id for assignment in company.assignments}
    inactive = next((person for person in company.employees if not person.is_active), None)
    idle = next((person for person in company.active if person.id not in assigned), None)
    stranger = Employee(0, "stranger@example.com", "Nobody", None, "none", is_active=False)
    return [person for person in (inactive, idle, stranger) if person is not None]
