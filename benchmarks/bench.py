"""What a case is made of: its steps, the stack they run on, and how much they work on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import measured, wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.measure import Measured
    from benchmarks.results import Results
    from benchmarks.stack import Stack
    from benchmarks.table import Table

__all__ = ["FULL", "SMOKE", "Bench", "Case", "Scale", "Step"]

_PEERS = Path(__file__).with_name("peers")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much the cases work on.

    Parameters
    ----------
    images
        A few and many images for every pipeline; the rate between the two is the marginal one.
    fast_images
        The same for what is ten times as fast as the others.
    memory_images
        Images of the runs, from a short to a long one, whose workers' memory is compared.
    beside_large
        Small images beside the large one.
    pca_rows, pca_dimensions
        Numbers of vectors, and the length of each.
    engine_seconds
        Seconds that the engine is measured for in each of its settings.
    """

    images: tuple[int, int]
    fast_images: tuple[int, int]
    memory_images: tuple[int, ...]
    beside_large: int
    pca_rows: tuple[int, int]
    pca_dimensions: int
    engine_seconds: float


FULL = Scale(
    images=(1_600, 4_000),
    fast_images=(4_000, 20_000),
    memory_images=(2_000, 20_000, 100_000),
    beside_large=500,
    pca_rows=(8_000, 50_000),
    pca_dimensions=2_048,
    engine_seconds=2.0,
)

SMOKE = Scale(
    images=(32, 96),
    fast_images=(96, 192),
    memory_images=(64, 128),
    beside_large=48,
    pca_rows=(400, 800),
    pca_dimensions=64,
    engine_seconds=0.3,
)
"""Enough to see that every case works; its figures mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how much is measured.

    Parameters
    ----------
    stack
        The running local stack.
    scale
        How much.
    logs
        Folder of the measured processes' logs.
    """

    stack: Stack
    scale: Scale
    logs: Path

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Measured:
        """Run Python with arguments, measure it with its Spark executors, keep its log."""
        wait_until_idle(self.stack.spark_worker)
        return measured(
            [sys.executable, *command],
            log=self.logs / f"{name.replace(' ', '-').replace(',', '')}.log",
            environment=environment,
            spark_worker=self.stack.spark_worker,
        )

    def run_peer(
        self, script: str, *arguments: str, endpoint: str | None = None, **variables: str
    ) -> Measured:
        """Run one of the peers."""
        environment = self.stack.peer_environment(endpoint=endpoint) | variables
        name = Path(script).stem
        return self.run(name, [str(_PEERS / script), *arguments], environment=environment)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement that is taken in every round.

    Parameters
    ----------
    subject
        Who is measured, and in which setting.
    size
        Images (or rows) that it works on.
    measure
        Returns the figures.
    once
        Every round would give the same: only the first one measures it.
    """

    subject: str
    size: int
    measure: Callable[[], dict[str, Any]]
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """A comparison: what is measured, and the tables that are made of it.

    Parameters
    ----------
    name
        For `--only` and in the raw results.
    about
        One line for `--list`.
    steps
        What a round measures, in this order.
    tables
        Made of whatever there is.
    """

    name: str
    about: str
    steps: Callable[[Bench], list[Step]]
    tables: Callable[[Results], list[Table]]
