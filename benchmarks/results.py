"""What was measured: one JSON line a measurement, appended as soon as it ends."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import Series

__all__ = ["Measurement", "Results"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement of one round.

    Parameters
    ----------
    case
        Name of the case.
    subject
        Who was measured, and in which setting.
    size
        Images (or rows) it worked on.
    round
        From 1.
    figures
        Name -> value; what is no number is for people.
    at
        When it began, ISO 8601.
    load
        The machine's load average over the minute before it began.
    """

    case: str
    subject: str
    size: int
    round: int
    figures: dict[str, Any]
    at: str
    load: float

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells it from every other measurement."""
        return self.case, self.subject, self.size, self.round


@dataclass(frozen=True)
class Results:
    """The measurements of a benchmark and the machines (or states of one) they were taken on.

    Parameters
    ----------
    file
        Takes one JSON document a line: a session whenever a benchmark begins or is continued, and
        then its measurements.
    """

    file: Path
    sessions: list[dict[str, Any]] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    @classmethod
    def load(cls, file: Path) -> Results:
        """Read what is there; a last line that was cut off is dropped, and measured again."""
        results = cls(file)
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                document = json.loads(line)
            except ValueError:
                if number < len(lines):
                    raise
                file.write_text("".join(f"{whole}\n" for whole in lines[:-1]), encoding="utf-8")
                break
            if "session" in document:
                results.sessions.append(document["session"])
            else:
                results.measurements.append(Measurement(**document))
        return results

    def begin(self, session: dict[str, Any]) -> None:
        """Note the machine that the next measurements are taken on."""
        self.sessions.append(session)
        self._append({"session": session})

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement."""
        self.measurements.append(measurement)
        self._append(asdict(measurement))

    def __contains__(self, key: tuple[str, str, int, int]) -> bool:
        return any(each.key == key for each in self.measurements)

    def subjects(self, case: str) -> list[str]:
        """Return who was measured, in the order of their first measurement."""
        return list(dict.fromkeys(each.subject for each in self.measurements if each.case == case))

    def sizes(self, case: str, subject: str | None = None) -> list[int]:
        """Return the sizes at which a case (of one subject) was measured, ascending."""
        fitting = (each for each in self.measurements if each.case == case)
        return sorted({each.size for each in fitting if subject in {None, each.subject}})

    def series(self, case: str, subject: str, size: int, figure: str) -> Series:
        """Return a figure round by round; a round that does not have it is left out."""
        return {
            each.round: each.figures[figure]
            for each in self.measurements
            if (each.case, each.subject, each.size) == (case, subject, size)
            and each.figures.get(figure) is not None
        }

    def by_size(self, case: str, subject: str, figure: str) -> dict[int, Series]:
        """Return a figure at every size."""
        return {
            size: self.series(case, subject, size, figure) for size in self.sizes(case, subject)
        }

    def latest(self, case: str, subject: str, figure: str, *, size: int | None = None) -> Any:
        """Return the newest value of a figure, at one size or at any; None where there is none."""
        values = [
            each.figures[figure]
            for each in self.measurements
            if (each.case, each.subject) == (case, subject)
            and size in {None, each.size}
            and figure in each.figures
        ]
        return values[-1] if values else None

    def _append(self, document: dict[str, Any]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(document, ensure_ascii=False) + "\n")
