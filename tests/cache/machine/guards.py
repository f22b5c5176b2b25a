"""Each guard of the cache, and whether the machine finds that it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ctxmiddleware

PACKAGE = Path(ctxmiddleware.__file__).parent
FINDINGS = Path(__file__).with_name("findings.md")


@dataclass(frozen=True)
class Guard:
    """A few words of the source that keep a promise.

    Args:
        name: what it guards against.
        file: where it is, in the package.
        text: the words, once in that file.
        without: what stands there when it is removed.
    """

    name: str
    file: str
    text: str
    without: str


_FLIGHT, _FLIGHTS = "cache/flight.py", "cache/flights.py"
_TIERED, _LOOKING, _FILLING = "cache/tiered.py", "cache/looking.py", "cache/filling.py"
_KEEPING, _FAILSAFE, _POLICY = "cache/keeping.py", "cache/failsafe.py", "cache/policy.py"
_CHANNEL, _HEARING = "cache/redis/channel.py", "cache/hearing.py"
_ANNOUNCING = "cache/redis/announcing.py"
_SETTLING = "cache/settling.py"

GUARDS = (
    Guard(
        "keeping in memory what was loaded before an invalidation",
        _FLIGHTS,
        "            if not flight.overtaken:\n                keep()\n",
        "            keep()\n",
    ),
    Guard(
        "answering with what was loaded before an invalidation",
        _FLIGHT,
        "        if self.overtaken:\n            return None\n",
        "",
    ),
    Guard(
        "a load that read the former generation while Redis was told",
        _TIERED,
        "                dropped += keeping.forget(name)\n",
        "                pass\n",
    ),
    Guard(
        "an invalidation elsewhere during a load (compare and set)",
        _KEEPING,
        "            if stored is False:\n",
        "            if stored is False and not value:\n",
    ),
    Guard(
        "confirming an entry of another generation",
        _LOOKING,
        "held is not None and held.fence == look.fence:",
        "held is not None:",
    ),
    Guard(
        "serving by memory for longer than it is trusted",
        _POLICY,
        "        if now < entry.trusted_until:\n",
        "        if entry.fence is not None:\n",
    ),
    Guard(
        "standing in for the source after an invalidation elsewhere",
        _FAILSAFE,
        "may = flight in looks and not self._is_overtaken(flight, looks[flight])",
        "may = flight in looks",
    ),
    Guard(
        "standing in, while the source is slow, on trust that has ended",
        _FAILSAFE,
        "        if now >= until:\n            return None\n",
        "",
    ),
    Guard(
        "standing in, while the source is slow, for a user who was invalidated",
        _FAILSAFE,
        "if flight.overtaken or not flight.has_looked or flight.known is None:",
        "if flight.known is None:",
    ),
    Guard(
        "standing in without end",
        _POLICY,
        "return Verdict.STALE if now < stale_until(entry, trust) else Verdict.GONE",
        "return Verdict.STALE",
    ),
    Guard(
        "standing in for longer than memory is trusted",
        _FAILSAFE,
        "self._pause = min(PAUSE_SECONDS, policy.untrusted_ttl)",
        "self._pause = 60.0",
    ),
    Guard(
        "bringing back, with Redis gone, what Redis said was overtaken",
        _LOOKING,
        "            self._keeping.drop_others(flight, look.fence)\n",
        "            pass\n",
    ),
    Guard(
        "two loads of one user",
        _TIERED,
        "        if flight is None or self._clock() >= flight.closes_at:\n"
        "            return self.flights.start(key, alone=alone)\n",
        "        return self.flights.start(key, alone=alone)\n",
    ),
    Guard(
        "an invalidation that reaches one partition only",
        "cache/memory.py",
        "for partition in self._partitions",
        'for partition in [""]',
    ),
    Guard(
        "more in memory than it may hold",
        "cache/memory.py",
        "else len(self._known) >= self.max_entries:\n",
        "else len(self._known) >= 2 * self.max_entries:\n",
    ),
    Guard(
        "a load that ends with one of its callers",
        _TIERED,
        "                return await flight.wait()\n",
        "                try:\n"
        "                    found = await flight.wait()\n"
        "                except anyio.get_cancelled_exc_class():\n"
        "                    setattr(flight, 'left', True)\n"
        "                    raise\n"
        "                if hasattr(flight, 'left'):\n"
        "                    raise SourceUnavailable('another caller has gone')\n"
        "                return found\n",
    ),
    Guard(
        "errors where all is well",
        _FILLING,
        "answers = await self._load(asks)\n",
        "answers = [SourceUnavailable('never') for _ in asks]\n",
    ),
    Guard(
        "more calls of the source than may be made",
        "cache/queue.py",
        "        if self.calls >= self._limits.max_calls:\n            return False\n",
        "",
    ),
    Guard("an announcement that is missing", _CHANNEL, " or each.number != self._number + 1:", ":"),
    Guard(
        "trust, until the next proof, after an announcement that was missing",
        _CHANNEL,
        '            self._counters.add("missed", CHANNEL)\n            self._listener.missed()\n',
        "            pass\n",
    ),
    Guard(
        "another incarnation of the channel",
        _CHANNEL,
        "if beat.incarnation != self._incarnation or beat.number < self._number:",
        "if self._incarnation is None:",
    ),
    Guard(
        "settling everyone anew where Redis was emptied",
        _CHANNEL,
        "        self._listener.begun_anew()\n",
        "",
    ),
    Guard(
        "what was looked up before the channel was followed",
        _CHANNEL,
        "            self._listener.missed()\n        self._promised",
        "        self._promised",
    ),
    Guard(
        "a proof before the announcements it promises",
        _CHANNEL,
        "if self._promised is None or self._number < self._promised[0].number:",
        "if self._promised is None:",
    ),
    Guard(
        "a proof from when it arrived, and not from when it was asked for",
        _CHANNEL,
        "            self._listener.prove(asked_at)\n",
        "            self._listener.prove(self._listener.now())\n",
    ),
    Guard(
        "an invalidation that failed and comes all the same", _CHANNEL, "        if failed:\n", "        if False:\n"
    ),
    Guard(
        "trusting what was looked up before news were missed",
        _POLICY,
        "if now < entry.expires_at and entry.epoch == trust.epoch:",
        "if now < entry.expires_at:",
    ),
    Guard(
        "trusting what was looked up while news were missed",
        _LOOKING,
        "            flight.epoch, flight.doubted = self._trust.epoch, False\n"
        "        asked_at, looks = await self._keeping.look(flights)\n"
        "        looked = asked_at, self._clock()\n",
        "            flight.doubted = False\n"
        "        asked_at, looks = await self._keeping.look(flights)\n"
        "        for flight in flights:\n"
        "            flight.epoch = self._trust.epoch\n"
        "        looked = asked_at, self._clock()\n",
    ),
    Guard(
        "trusting what was stored while news were missed",
        _FILLING,
        "flight.epoch = epoch if flight.key in confirmed else flight.epoch",
        "flight.epoch = self._trust.epoch if flight.key in confirmed else flight.epoch",
    ),
    Guard(
        "a load under way that somebody else's invalidation overtakes",
        _KEEPING,
        "lambda flight: flight.look is not None and is_new(flight.look.fence),",
        "lambda flight: flight.look is not None,",
    ),
    Guard(
        "an entry that somebody else's invalidation overtakes",
        _KEEPING,
        "lambda: memory.drop(name, lambda entry: is_new(entry.fence)),",
        "lambda: 0,",
    ),
    Guard(
        "everybody's entries that somebody else's invalidation overtakes",
        _HEARING,
        "            self._keeping.forget(None)\n",
        "            pass\n",
    ),
    Guard(
        "a generation that was touched during a load",
        _FLIGHTS,
        "                flight.doubted = True\n",
        "                pass\n",
    ),
    Guard("a generation that was touched", _FLIGHTS, "            doubt()\n", "            pass\n"),
    Guard(
        "a generation that was touched before a store that could not compare it",
        _FILLING,
        "            flight.doubted |= flight in doubted and flight.key not in confirmed\n",
        "",
    ),
    Guard(
        "trusting what was looked up before an invalidation that was told to come",
        _KEEPING,
        "if flight.doubted or self.expected.holds(flight.key[1], self._clock()):",
        "if flight.doubted:",
    ),
    Guard(
        "what Redis said before the process was stopped",
        _KEEPING,
        "                if not self.is_late(asked_at):\n",
        "                if answers:\n",
    ),
    Guard(
        "what Redis had compared before the process was stopped",
        _FILLING,
        "flight.key in confirmed and self.keeping.is_late(stored_at)",
        "flight.key not in confirmed and self.keeping.is_late(math.inf)",
    ),
    Guard(
        "trusting what is loaded while no report counts this instance in",
        _POLICY,
        "        trusted_until = asked_at + (self.untrusted_ttl if listed else 0.0) if shared else math.inf\n",
        "        trusted_until = asked_at + self.untrusted_ttl if shared else math.inf\n",
    ),
    Guard(
        "trusting what is confirmed while no report counts this instance in",
        _POLICY,
        "trusted_until=asked_at + (self.untrusted_ttl if listed else 0.0), epoch=epoch)",
        "trusted_until=asked_at + self.untrusted_ttl, epoch=epoch)",
    ),
    Guard(
        "trusting what is taken from Redis while no report counts this instance in",
        _LOOKING,
        "            shared=True,\n            listed=flight.listed,\n",
        "            shared=True,\n",
    ),
    Guard(
        "standing in with what was loaded while no report counted this instance in",
        _POLICY,
        "        if value is not None and listed:\n",
        "        if value is not None:\n",
    ),
    Guard(
        "standing in with what was confirmed while no report counted this instance in",
        _POLICY,
        "        if not listed:\n            found.untrusted_grace = 0.0\n",
        "        if not listed:\n            found.untrusted_grace = self._untrusted_grace\n",
    ),
    Guard(
        "standing in past trust for as long as past its time",
        _POLICY,
        "            entry.untrusted_grace = self._untrusted_grace\n",
        "            entry.untrusted_grace = self.stale_for\n",
    ),
    Guard(
        "joining a call that an instance began while no report counted it in",
        _FILLING,
        "            if not is_listed:\n                flight.closes_at = -math.inf\n",
        "",
    ),
    Guard(
        "joining a look-up that an instance began while no report counted it in",
        _LOOKING,
        "            flight.listed, flight.closes_at = is_listed, math.inf if is_listed else -math.inf\n",
        "            flight.listed = is_listed\n",
    ),
    Guard(
        "trusting a look-up that began while no report counted this instance in",
        _LOOKING,
        "self._policy.confirmed(held, asked_at, flight.epoch, listed=flight.listed,",
        "self._policy.confirmed(held, asked_at, flight.epoch, listed=self._keeping.is_listed,",
    ),
    Guard(
        "keeping what is loaded long after the last beat",
        _CHANNEL,
        "        return self._clock() < self._listed_until\n",
        "        return self._listed_until > 0\n",
    ),
    Guard(
        "being listed from when a beat was answered, and not from when it was asked for",
        _CHANNEL,
        "max(self._listed_until, asked_at + LISTED_MS / 1000)",
        "max(self._listed_until, self._clock() + LISTED_MS / 1000)",
    ),
    Guard(
        "an answer that comes later than the report of an invalidation says",
        _FILLING,
        "        if is_trusted or not flight.listed or self._clock() < until + grace:\n",
        "        if is_trusted or not flight.listed or grace:\n",
    ),
    Guard(
        "relying on a list of instances that is young",
        _ANNOUNCING,
        "        if age >= LISTED_MS / 1000 + longest:\n",
        "        if age >= 0:\n",
    ),
    Guard(
        "reporting less than what is left to an instance that is listed",
        _ANNOUNCING,
        "    return max(0.0, min(longest, longest + (LISTED_MS - age_ms) / 1000))\n",
        "    return max(0.0, longest - age_ms / 1000)\n",
    ),
    Guard(
        "keeping what is loaded within settle of an invalidation",
        _POLICY,
        "    if end < math.inf:\n",
        "    if end == -math.inf:\n",
    ),
    Guard(
        "keeping what is loaded of a name that is held",
        _SETTLING,
        "        if (look is not None and look.is_held) or (self._held and digest_of(name) in self._held):\n",
        "        if look is None and self._held:\n",
    ),
    Guard(
        "forgetting, with Redis, what was heard of an invalidation",
        _SETTLING,
        "        heard_at = self._everyone_at, self._at.get(digest, -math.inf)\n",
        "        heard_at = -math.inf, -math.inf\n",
    ),
    Guard(
        "settling by what was heard alone",
        _SETTLING,
        "            _window(heard + length, length - each, looked)\n",
        "            _window(heard + length, -math.inf, looked)\n",
    ),
    Guard(
        "ending with the last of several invalidations what was loaded after the first",
        "cache/base.py",
        "    return min((each.earliest for each in windows if loaded_at < each.latest), default=math.inf)\n",
        "    return max((each.earliest for each in windows if loaded_at < each.latest), default=math.inf)\n",
    ),
    Guard(
        "joining, after settle, a load that began within it",
        _FILLING,
        "            flight.closes_at = end_of(self.keeping.settles(flight), asked_at)\n",
        "            flight.closes_at = end_of((), asked_at)\n",
    ),
)


def main(steps: int, seed: int) -> int:
    """Remove each guard, let the machine run, and write down what it found; return how many it did not find.

    Args:
        steps: of the machine, at least, before a guard is not found.
        seed: with which it begins.
    """
    rows = []
    # Two at a time: each runs in a process of its own.
    with ThreadPoolExecutor(2) as pool:
        for guard, found in zip(GUARDS, pool.map(lambda guard: _without(guard, steps, seed), GUARDS), strict=True):
            rows.append(f"| {guard.name} | `{guard.file}` | {found} |")
            print(rows[-1], flush=True)
    head = _HEAD.format(seed=seed, steps=steps)
    FINDINGS.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    return sum("not found" in row for row in rows)


_HEAD = """# What the machine finds where a guard is missing

Written by `python -m tests.cache.machine guards --seed {seed} --steps {steps}`: each guard is removed from a copy of
the package, alone, and the machine runs until it finds a broken promise, from seed {seed} on with one seed more every
40 examples, for {steps} steps at most. Steps are callbacks of the event loop and rules of the machine.

| without the guard against | in | the machine says |
|---|---|---|
"""


def _without(guard: Guard, steps: int, seed: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PACKAGE.name)
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        changed = copy / guard.file
        text = changed.read_text(encoding="utf-8")
        assert text.count(guard.text) == 1, guard.name
        changed.write_text(text.replace(guard.text, guard.without), encoding="utf-8")
        command = [sys.executable, "-m", "tests.cache.machine", "--quiet", "--steps", str(steps), "--seed", str(seed)]
        # The copy first, and the tests from where they are.
        paths = os.pathsep.join([folder, str(PACKAGE.parent)])
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("BROKEN")]
    if lines:
        return lines[0].removeprefix("BROKEN ").split(";")[0].replace("|", "/")
    return f"not found in {steps} steps" if done.returncode == 0 else f"it could not run: {done.stderr[-200:]!r}"
