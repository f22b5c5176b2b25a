"""The command `ctxmiddleware`: what an operator does from a shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final, TypeAlias

import msgspec

from . import environment, settings
from .errors import ConfigurationError, ContextError
from .identity.scope_user import ScopeUser
from .migrations import catalogue
from .model import UserContext
from .plugin_options import arguments_from_env
from .principal import Identity
from .pseudonym import Pseudonyms
from .remote import AdminClient
from .shown import shown
from .testing import StaticSource

Run: TypeAlias = Callable[[argparse.Namespace], int]
# Written out, because argparse keeps the class of what add_subparsers returns to itself.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_ADMIN: Final = "http://127.0.0.1:8000/api/admin/cache"
_FAILED: Final = 1
_MISUSED: Final = 2
# What a shell shows for a program that a closed pipe has ended: 128 + SIGPIPE.
_PIPE_CLOSED: Final = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    Args:
        argv: the words after the program's name; those of this process where it is None.

    Raises:
        SystemExit: the words are no command (2) or ask for help (0), as argparse has it.
    """
    arguments = _parser().parse_args(argv)
    run: Run = arguments.run
    try:
        status = run(arguments)
        # Here and not when the interpreter ends, where a closed pipe is a traceback.
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except ContextError as error:
        print(f"ctxmiddleware: {error}", file=sys.stderr)
        return _MISUSED if isinstance(error, ConfigurationError) else _FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ctxmiddleware", description="Look after an installation of ctxmiddleware.")
    parser.add_argument("--version", action="version", version=f"ctxmiddleware {version('ctxmiddleware')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_settings, _add_sql, _add_admin, _add_hash):
        add(commands)
    return parser


def _command(commands: Commands, name: str, summary: str, run: Run, *, more: str = "") -> argparse.ArgumentParser:
    """Add a command and say what runs it."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}")
    parser.set_defaults(run=run)
    return parser


def _add_settings(commands: Commands) -> None:
    how = (
        "With --check it builds all that ContextPlugin.from_env() would build, opens none of it, says all that is "
        "wrong with the environment at once, and ends with 2 where something is."
    )
    listing = _command(commands, "settings", "list the environment variables that are read", _list_settings, more=how)
    listing.add_argument("--check", action="store_true", help="check the variables of this environment")
    for argument, what in (("source", "has a source of its own"), ("identify", "finds out by itself who asks")):
        told = f"with --check: the application {what} and calls from_env({argument}=...)"
        listing.add_argument(f"--own-{argument}", action="store_true", help=told)


def _list_settings(arguments: argparse.Namespace) -> int:
    if arguments.check:
        source: StaticSource[UserContext] | None = StaticSource({}) if arguments.own_source else None
        arguments_from_env(os.environ, source=source, identify=ScopeUser() if arguments.own_identify else None)
        print(
            "The application can be built with this environment. Nothing was opened: servers and keys were not tried."
        )
        return 0
    for rule, default in settings.rules():
        state = "set" if os.environ.get(rule.variable, "").strip() else f"default {_shown(default)}"
        print(f"{rule.variable}  ({state})\n    {rule.meaning}\n    Allowed: {rule.allowed}.")
    return 0


def _shown(default: object) -> str:
    if default is None or default == ():
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _add_admin(commands: Commands) -> None:
    for name, summary, ask in (
        ("stats", "show the counters of a running application", lambda admin, _: admin.stats()),
        ("invalidate", "make a running application forget users", _invalidate),
        ("clear", "make a running application forget all users", lambda admin, _: _reported(admin.clear(), ())),
    ):
        how = f"The admin's token is taken from {settings.ADMIN_TOKEN}."
        command = _command(commands, name, summary, _asks(ask), more=how)
        command.add_argument("--url", default=_ADMIN, help="where the admin is mounted (default: %(default)s)")
        if name == "invalidate":
            command.add_argument("email", metavar="EMAIL", nargs="*", help="users' addresses, in any spelling of them")
            command.add_argument("--subject", action="append", help="a subject, where users have them; repeatable")
            command.add_argument("--tenant", default="", help="the users' tenant; every tenant's context is forgotten")
            command.add_argument("--or-clear", action="store_true", help="let more than 1,000 users become a clear")


def _asks(ask: Callable[[AdminClient, argparse.Namespace], str]) -> Run:
    def run(arguments: argparse.Namespace) -> int:
        token = environment.admin_token()
        if token is None:
            raise ConfigurationError(f"{settings.ADMIN_TOKEN} is not set: it is what opens the admin")
        print(ask(AdminClient(arguments.url, token), arguments))
        return 0

    return run


def _invalidate(admin: AdminClient, given: argparse.Namespace) -> str:
    return _reported(admin.invalidate(_given_users(given), or_clear=given.or_clear), given.email)


def _reported(report: str, addresses: Sequence[str]) -> str:
    """Say in a line of its own what a reader of a report has to know, and return the report."""
    told = msgspec.json.decode(report, type=_Told)
    lines = []
    if told.was_known is False:
        lines.append("nothing was kept: no instance has looked up what was named lately")
    lines += [f"{shown(each)} holds no '@': is it a subject (--subject)?" for each in addresses if "@" not in each]
    if told.others_stop_within:
        lines.append(f"other instances stop within {told.others_stop_within:g} s")
    if told.unlisted_because:
        lines.append(f"an instance may be missing from the report: {told.unlisted_because}")
    for line in lines:
        print(f"ctxmiddleware: {line}", file=sys.stderr)
    return report


class _Told(msgspec.Struct):
    was_known: bool | None = None
    others_stop_within: float | None = None
    unlisted_because: str | None = None


def _given_users(given: argparse.Namespace) -> list[Identity]:
    named = [(email, None) for email in given.email] + [(None, subject) for subject in given.subject or ()]
    if not named:
        raise ConfigurationError("give one user or more: EMAIL or --subject SUBJECT")
    try:
        return [Identity(email, subject=subject, tenant=given.tenant) for email, subject in named]
    except ValueError as error:
        raise ConfigurationError(f"{error}".partition(":")[0]) from None


def _add_hash(commands: Commands) -> None:
    how = (
        f"The key is taken from {settings.LOG_KEY} and has to be the application's. Prints the hash and the address of "
        "each, in whatever spelling."
    )
    command = _command(commands, "hash", "show what stands for users in logs", _hash, more=how)
    command.add_argument(
        "users", metavar="USER", nargs="*", help="addresses; without any, one a line from standard input"
    )
    command.add_argument("--subject", action="store_true", help="they are subjects and no addresses")


def _hash(arguments: argparse.Namespace) -> int:
    key = environment.log_key()
    if key is None:
        raise ConfigurationError(
            f"{settings.LOG_KEY} is not set: without it each process makes up a key of its own, which nobody else knows"
        )
    pseudonyms = Pseudonyms(key)
    words: list[str] = arguments.users
    given = words or [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    if not any(user.strip() for user in given):
        raise ConfigurationError("no user was given: name one or more, or write them to standard input")
    blank = next((place for place, user in enumerate(given, 1) if not user.strip()), None)
    if blank is not None:
        # Left out, it would be taken for a user without lines: often it is a variable that is not set.
        raise ConfigurationError(f"user {blank} of {len(given)} is blank: name each by an address or a subject")
    identities = [_identity_of(user, is_subject=arguments.subject) for user in given]
    for user, identity in zip(given, identities, strict=True):
        # A terminal obeys what cannot be printed.
        print(f"{pseudonyms.of(identity)}  {''.join(each if each.isprintable() else '?' for each in user)}")
    return 0


def _add_sql(commands: Commands) -> None:
    summary = "the SQL that makes a miss one call instead of four queries"
    sql = commands.add_parser("sql", help=summary, description=f"Print {summary}.")
    actions = sql.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(actions, "list", "list the names of the SQL files and what each is for", _list_sql)
    how = "Paste it into the SQL editor, or pipe it into psql --single-transaction -v ON_ERROR_STOP=1."
    show = _command(actions, "show", "print one SQL file as it is", _show_sql, more=how)
    show.add_argument("name", metavar="NAME", help=f"one of: {', '.join(catalogue.names())}")


def _list_sql(_: argparse.Namespace) -> int:
    scripts = [catalogue.script(name) for name in catalogue.names()]
    width = max(len(script.name) for script in scripts)
    for script in scripts:
        print(f"{script.name:<{width}}  {script.title}")
    return 0


def _identity_of(user: str, *, is_subject: bool) -> Identity:
    try:
        return Identity(subject=user) if is_subject else Identity(user)
    except ValueError as error:
        raise ConfigurationError(f"{error}".partition(":")[0]) from None


def _show_sql(arguments: argparse.Namespace) -> int:
    name: str = arguments.name
    sys.stdout.write(catalogue.read(name))
    return 0
