"""``python -m benchmarks``: measure, keep every measurement, make the tables."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.bench import FULL, SMOKE, Bench
from benchmarks.cases import CASES
from benchmarks.machine import described, short_cpu_name, this_machine
from benchmarks.results import Measurement, Results
from benchmarks.stack import running_stack
from benchmarks.table import as_markdown, print_tables
from benchmarks.targets import target_table
from toolkit.folders import state_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.bench import Case, Step

_RESULTS = Path(__file__).with_name("results")
_HEADING = "Benchmarks"


def main() -> int:
    """Run the benchmarks that the command line asks for; return the exit code."""
    arguments = _parser().parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=160)
    if arguments.list:
        for case in CASES.values():
            console.print(f"{case.name:14} {case.about}", highlight=False)
        return 0
    table = arguments.resume or arguments.output or _default_output(smoke=arguments.smoke)
    raw = table.with_suffix(".jsonl")
    if raw.exists() and not (arguments.resume or arguments.table):
        console.print(f"{raw} is there already: --resume {table}, or another --output.")
        return 2
    results = Results.load(raw)
    # What ends a slice from outside (`timeout`, a closed terminal) ends it as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        complete = arguments.table or _measure(arguments, results, console)
    except KeyboardInterrupt:
        complete = False
    finally:
        _write_tables(results, table, console)
    return 0 if complete else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the toolkit beside what people use."
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every measurement: 3")
    parser.add_argument(
        "--images", type=int, nargs=2, metavar=("FEW", "MANY"), help="images a pipeline: 1600 4000"
    )
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=CASES, help="these cases")
    parser.add_argument(
        "--match", nargs="+", metavar="TEXT", help="subjects that hold one of these"
    )
    parser.add_argument("--list", action="store_true", help="show the cases and end")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.md", help="table; raw results go to FILE.jsonl"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE.md", help="measure what FILE.jsonl lacks"
    )
    parser.add_argument(
        "--minutes", type=float, help="begin no measurement after so many minutes: a slice"
    )
    parser.add_argument(
        "--table", action="store_true", help="measure nothing: make the table of what is there"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="few images: see that everything works"
    )
    return parser


def _default_output(*, smoke: bool) -> Path:
    kind = "-smoke" if smoke else ""
    return _RESULTS / f"{date.today().isoformat()}-{short_cpu_name()}{kind}.md"  # noqa: DTZ011


def _measure(arguments: argparse.Namespace, results: Results, console: Console) -> bool:
    """Take every measurement that is asked for and not there; return whether all are there."""
    scale = SMOKE if arguments.smoke else FULL
    if arguments.images:
        scale = replace(scale, images=tuple(arguments.images))
    stack = running_stack(say=console.print)
    bench = Bench(stack=stack, scale=scale, logs=state_folder() / "benchmarks" / "logs")
    cases = [CASES[name] for name in arguments.only or CASES]
    todo = [
        each
        for each in _todo(cases, bench, rounds=arguments.rounds, results=results)
        if any(text in each[2].subject for text in arguments.match or [""])
    ]
    if todo:
        results.begin(this_machine(java_home=stack.java_home) | {"smoke": arguments.smoke})
    deadline = time.monotonic() + 60 * (arguments.minutes or float("inf"))
    complete = True
    for place, (number, case, step) in enumerate(todo, start=1):
        if time.monotonic() > deadline:
            console.print(f"{len(todo) - place + 1} measurements are left for the next slice.")
            return False
        console.print(
            f"[{place}/{len(todo)}] round {number}: {case.name}, {step.subject}, {step.size:,}",
            highlight=False,
            markup=False,
        )
        complete &= _measure_one(number, case, step, results=results, console=console)
    return complete


def _todo(
    cases: Sequence[Case], bench: Bench, *, rounds: int, results: Results
) -> Iterator[tuple[int, Case, Step]]:
    """Yield round by round what is not measured yet: rivals are measured minutes apart."""
    steps = [(case, step) for case in cases for step in case.steps(bench)]
    for number in range(1, rounds + 1):
        for case, step in steps:
            if step.once and number > 1:
                continue
            if (case.name, step.subject, step.size, number) not in results:
                yield number, case, step


def _measure_one(
    number: int, case: Case, step: Step, *, results: Results, console: Console
) -> bool:
    at, load = datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()[0]
    begin = time.monotonic()
    try:
        figures = step.measure()
    except Exception as exc:  # noqa: BLE001 - it must not take hours of others along
        console.print(f"    FAILED: {exc}", style="red", highlight=False, markup=False)
        return False
    results.add(
        Measurement(
            case=case.name,
            subject=step.subject,
            size=step.size,
            round=number,
            figures=figures,
            at=at,
            load=round(load, 2),
        )
    )
    told = ", ".join(
        f"{name} {value:,.5g}" for name, value in figures.items() if isinstance(value, float)
    )
    console.print(f"    {told} ({time.monotonic() - begin:.0f} s)", highlight=False, markup=False)
    return True


def _write_tables(results: Results, file: Path, console: Console) -> None:
    if not results.measurements:
        return
    lines = described(results.sessions, [each.load for each in results.measurements])
    tables = [target_table(results)]
    for case in CASES.values():
        tables += case.tables(results)
    file.write_text(as_markdown(_HEADING, lines, tables), encoding="utf-8")
    print_tables(console, _HEADING, lines=lines, tables=tables)
    console.print(f"Table: {file}\nRaw results: {results.file}", highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
