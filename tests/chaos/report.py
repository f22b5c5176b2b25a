"""What a run has found, for people, for a file and for an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .history import Verdict
from .leaks import Leaks
from .tally import Tally


@dataclass(frozen=True)
class Report:
    """What a run has found.

    Args:
        seed: what decided it.
        seconds: how long things failed.
        tally: what was asked, and what came of it.
        unhandled: errors in the logs that nobody has foreseen.
        leaks: what is there in the end and was not in the beginning.
        not_recovered: who did not serve the newest once everything worked again.
    """

    seed: int
    seconds: float
    tally: Tally
    unhandled: tuple[str, ...]
    leaks: Leaks
    not_recovered: tuple[str, ...]

    @property
    def faults(self) -> dict[str, int]:
        """What must be nought, by name."""
        verdicts = self.tally.verdicts
        told = verdicts[Verdict.MIX_UP] + verdicts[Verdict.TOO_OLD]
        return {
            "mix-ups": verdicts[Verdict.MIX_UP],
            "answers beyond the report of an invalidation": verdicts[Verdict.TOO_OLD],
            "other answers that must not be": len(self.tally.wrong) - told,
            "unhandled exceptions": len(self.unhandled),
            "leaked tasks": self.leaks.tasks,
            "leaked connections": self.leaks.connections,
            "not recovered": len(self.not_recovered),
        }

    @property
    def lagged(self) -> int:
        """How many answers lagged, as the report of the invalidation had said."""
        return self.tally.verdicts[Verdict.LAGGING] + self.tally.verdicts[Verdict.STALE]

    @property
    def is_clean(self) -> bool:
        """Whether all of that is nought."""
        return not any(self.faults.values())

    @property
    def evidence(self) -> list[str]:
        """Everything that must not be, each in a line."""
        return [*self.tally.wrong, *self.unhandled, *self.leaks.told, *self.not_recovered]

    def figures(self) -> dict[str, Any]:
        """Return everything, for a file."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "requests": self.tally.answers.total(),
            "answers": dict(self.tally.answers),
            "judged": {verdict.value: self.tally.verdicts[verdict] for verdict in Verdict},
            "lagged, as reported": self.lagged,
            "marked stale": self.tally.marked,
            "look-ups unanswered by themselves": self.tally.unexplained,
            "invalidations": dict(self.tally.invalidations),
            "reports": dict(self.tally.reports),
            "faults": dict(self.tally.faults),
            "faults in two places": dict(self.tally.doubled),
            "pairs of kinds at the same time": len(self.tally.pairs),
            "kinds that met no other": self.tally.met_none,
            **self.faults,
            "evidence": self.evidence,
        }

    def rows(self) -> list[dict[str, object]]:
        """Return one row for the benches' table."""
        return [
            {
                "seed": self.seed,
                "requests": self.tally.answers.total(),
                "faults": self.tally.faults.total(),
                "lagged, as reported": self.lagged,
                **self.faults,
                "exit code": 0 if self.is_clean else 1,
            }
        ]

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table("what", "how many", title=f"{self.seconds:g} s of faults, seed {self.seed}", title_justify="left")
        parts: list[tuple[str, dict[str, int]]] = [
            ("requests", dict(self.tally.answers.most_common())),
            ("judged", {each.value: self.tally.verdicts[each] for each in Verdict}),
            ("invalidations", dict(self.tally.invalidations)),
            ("reports of those", dict(self.tally.reports.most_common())),
            ("faults", dict(self.tally.faults.most_common())),
        ]
        for name, counts in parts:
            table.add_row(f"[bold]{name}[/bold]", str(sum(counts.values())))
            for kind, count in counts.items():
                table.add_row(f"  {kind}", str(count))
            table.add_section()
        table.add_row("faults in two places at a time", str(self.tally.doubled.total()))
        table.add_row("pairs of kinds of faults at the same time", str(len(self.tally.pairs)))
        table.add_row("kinds of faults that met no other", ", ".join(self.tally.met_none) or "none")
        table.add_section()
        table.add_row("answers that lagged, as the report of the invalidation had said", str(self.lagged))
        table.add_row("answers marked stale", str(self.tally.marked))
        table.add_row("look-ups that Redis did not answer, by itself", str(self.tally.unexplained))
        table.add_section()
        for name, count in self.faults.items():
            table.add_row(name, f"[red]{count}[/red]" if count else "0")
        console.print(table)
        for line in self.evidence:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
