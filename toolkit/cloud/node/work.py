"""The work of a promotion's node, ``python -m toolkit.cloud.node``: run the job, say how it goes.

Of several nodes the first one does so, on a Spark cluster of all of them (spark_cluster.py); the
others do what Spark tells them, write their logs, and end when the first one has.

The boot script (user_data.sh) and bootstrap.sh have brought the machine so far. What the node says
lies in the promotion's folder in the bucket: its status every few seconds, its log in chunks, in
the end the record of the run. It never leaves without a last status, unless the machine dies.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from toolkit.cloud.bundle import PROMOTIONS
from toolkit.cloud.job import JOB, NODE_FOLDER, JobDescription
from toolkit.cloud.node.log import NodeLog
from toolkit.cloud.node.spark_cluster import WAIT_SECONDS, Seat, SparkNode
from toolkit.cloud.node.spot import SpotNotices
from toolkit.cloud.parity import THERE, keep_features
from toolkit.cloud.status import BOOT_STAGE, Phase, PromotionFolder, Stage, Status
from toolkit.errors import JobError, RequestError, ToolkitError
from toolkit.folders import state_folder
from toolkit.pipeline import RunRequest, run
from toolkit.profiles import AWS, S3Settings
from toolkit.runs import Owner, all_runs
from toolkit.storage import Location, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from toolkit.profiles import Profile
    from toolkit.runs import RunRecord

__all__ = ["help_node", "main", "run_node"]

# Often enough for a bar that moves, and for a silence of a minute to mean something; at S3's prices
# an hour of it is 0.4 cents.
_HEARTBEAT_SECONDS = 5.0
# EC2 advises to ask every 5 seconds, and gives two minutes.
_WATCH_SECONDS = 5.0
# For the last status, after the store's own retries: what it says is worth some patience.
_LAST_WORDS = 5
_LAST_WORDS_PAUSE_SECONDS = 5.0
_RESUME = (
    "What is done stays in the bucket: promote again with --resume, and it goes on from there."
)
# What localstack/spark.py leaves to one Python worker, to the JVM, and to the system at least.
_WORKER_MIB = 768
_JVM_MIB = 1024
_SYSTEM_MIB = 1024
# Beside the executor: Spark's master and worker, and the driver.
_JVMS_OF_FIRST = 3
_JVMS_OF_OTHERS = 2
# The set-up, the images, the model: then the run has its record, or will within seconds.
_STAGES_BEFORE_RUN = 3
# An older one of this process there is not.
_RUNS_CONSIDERED = 5


def main(arguments: Sequence[str]) -> int:
    """Run the job that the command line names; return 0 if it is done, else the error's exit code.

    A node that helps the first one returns 0 when there is nothing more to do. Everything that this
    process and its children say goes to the log from then on.
    """
    parser = argparse.ArgumentParser(prog="python -m toolkit.cloud.node")
    parser.add_argument("--promotion", required=True, metavar="URI", help="its folder")
    parser.add_argument("--region", default="us-east-1", help="of the bucket")
    parser.add_argument("--node", default=socket.gethostname(), help="this node's name")
    parser.add_argument("--index", type=int, default=0, help="among the nodes; 0 is the first")
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="s for the other nodes")
    parser.add_argument("--bundle", type=Path, default=NODE_FOLDER, help="the unpacked bundle")
    log = state_folder() / "logs" / "node.log"
    parser.add_argument("--log", type=Path, default=log, help="where everything here is said")
    options = parser.parse_args(arguments)
    _say_everything_in(options.log)
    try:
        folder = _promotion_folder(options.promotion, region=options.region)
        paths = {"log": options.log, "bundle": options.bundle}
        if options.index:
            help_node(folder, node=options.node, **paths)
            return 0
        last = run_node(folder, node=options.node, **paths, wait_seconds=options.wait)
    except ToolkitError as exc:
        _say(str(exc))
        return exc.exit_code
    return 0 if last.phase == "done" else JobError.exit_code


def run_node(
    folder: PromotionFolder,
    *,
    node: str,
    log: Path,
    bundle: Path,
    wait_seconds: float = WAIT_SECONDS,
) -> Status:
    """Run a promotion's job and return the last status, which is in the bucket by then.

    Call it in the main thread: what ends the work early (a notice of interruption, ``stop`` in the
    bucket, SIGTERM) is raised there.

    Parameters
    ----------
    folder
        The promotion.
    node
        Name of this node.
    log
        The file that stdout and stderr go to; Spark's messages join them there.
    bundle
        Folder of the unpacked bundle.
    wait_seconds
        For the other nodes, after which the work begins without them.

    Raises
    ------
    JobError
        The last status can't be written.
    """
    node_log = NodeLog(log, folder, node)
    node_log.take_over()
    reporter = _Reporter(folder, _first_status(folder, node))
    with _Interruptions() as interruptions:
        with node_log.shipping(), reporter.reporting():
            work = partial(
                _run_job, folder, reporter, log=log, bundle=bundle, wait_seconds=wait_seconds
            )
            ending = _worked(folder, reporter, interruptions, work)
        last = reporter.change(**{"run_id": reporter.find_run(), **ending})
        _say(f"The work of this node has ended: {last.phase}.")
        with suppress(ToolkitError, OSError):  # the boot script tries again
            node_log.ship()
        with node_log.locked():
            _insist(lambda: folder.report(last))
            node_log.close()
    return last


def _worked(
    folder: PromotionFolder,
    reporter: _Reporter,
    interruptions: _Interruptions,
    work: Callable[[], RunRecord],
) -> dict[str, Any]:
    """Do the work, and return what the last status says of its end; it never raises."""
    try:
        with interruptions.heeded(), _watched(folder, reporter, interruptions):
            record = work()
    except BaseException as exc:  # noqa: BLE001 - a node that ends without a word costs people hours
        # What is interrupted may fail in its own way on its way out.
        return _why(interruptions.raised or exc)
    return {"phase": "done", "run_id": record.run_id}


def _why(exc: BaseException) -> dict[str, Any]:
    if isinstance(exc, _EndedEarlyError):
        _say(exc.reason)
        return {"phase": exc.phase, "error": exc.reason, "remedy": _RESUME}
    if isinstance(exc, ToolkitError):
        _say(str(exc))
        return {"phase": "failed", "error": exc.message, "remedy": exc.remedy or None}
    traceback.print_exception(exc)
    return {"phase": "failed", "error": f"{type(exc).__name__}: {exc}"}


def help_node(folder: PromotionFolder, *, node: str, log: Path, bundle: Path) -> None:
    """Work for the first node until that has ended; its status is the promotion's.

    Call it in the main thread, as `run_node`.

    Parameters
    ----------
    folder, node, log, bundle
        As of `run_node`.

    Raises
    ------
    JobError
        There is nothing to work with, or Spark's worker has ended by itself.
    """
    node_log = NodeLog(log, folder, node)
    node_log.take_over()
    try:
        with (
            _Interruptions() as interruptions,
            node_log.shipping(),
            _notices_said(),
            interruptions.heeded(),
        ):
            job = _job(folder, bundle=bundle)
            spark = _spark_node(job, folder, node, log=log, jvms=_JVMS_OF_OTHERS)
            _say(f"The work of this node has ended: {spark.work()}.")
    except _EndedEarlyError as exc:
        raise JobError(exc.reason) from None
    finally:
        with suppress(ToolkitError, OSError):  # the boot script tries again
            node_log.ship()
        with node_log.locked():
            node_log.close()


def _run_job(
    folder: PromotionFolder,
    reporter: _Reporter,
    *,
    log: Path,
    bundle: Path,
    wait_seconds: float,
) -> RunRecord:
    job, progress = _job(folder, bundle=bundle), _NodeProgress(reporter)
    with _spark(job, folder, reporter, log=log, wait_seconds=wait_seconds) as profile:
        # The network is the bundle's: what it was made of is on the machine that promotes.
        record = run(_request(job), profile, log=log, progress=progress, network=job.model)
    if job.sample:
        keep_features(folder, THERE, storage=Storage(profile.s3), record=record, sample=job.sample)
    folder.storage.write(folder.file("result.json"), record.to_json().encode())
    return record


@contextmanager
def _spark(
    job: JobDescription,
    folder: PromotionFolder,
    reporter: _Reporter,
    *,
    log: Path,
    wait_seconds: float,
) -> Iterator[Profile]:
    """Give the profile that leads to Spark: inside this process, or on all nodes."""
    profile = job.node_profile()
    if job.nodes == 1:
        yield _fitting(profile)
        return
    node = _spark_node(job, folder, reporter.status.node, log=log, jvms=_JVMS_OF_FIRST)
    progress = _NodeProgress(reporter)
    progress.begin(f"Spark on {job.nodes} nodes")
    began = time.monotonic()
    with node.leading(nodes=job.nodes, wait_seconds=wait_seconds) as cluster:
        reporter.change_stage(title=f"Spark on {cluster.joined} of {job.nodes} nodes")
        progress.end(time.monotonic() - began)
        yield _with_spark(profile, master=cluster.url, properties=cluster.properties)


def _job(folder: PromotionFolder, *, bundle: Path) -> JobDescription:
    return JobDescription.from_json(folder.storage.read(folder.file(JOB)), root=bundle)


def _spark_node(
    job: JobDescription, folder: PromotionFolder, node: str, *, log: Path, jvms: int
) -> SparkNode:
    return SparkNode(
        folder=folder,
        name=node,
        seat=Seat.here(),
        cores=_fitting_cores(jvms),
        memory=job.node_profile().spark.executor_memory,
        log=log,
        say=_say,
    )


def _request(job: JobDescription) -> RunRequest:
    return RunRequest(
        images=job.images,
        model=job.model.name,
        weights=job.weights,
        components=job.components,
        engine=job.model.engine,
        precision=job.model.precision,
        input_size=job.model.input_size[0],
        limit=job.limit,
        output=job.output,
    )


def _fitting(profile: Profile) -> Profile:
    """Let Spark inside the process take the cores that there is memory for."""
    if profile.spark.master != "local[*]":
        return profile
    return _with_spark(profile, master=f"local[{_fitting_cores(1)}]")


def _with_spark(profile: Profile, **settings: Any) -> Profile:
    spark = profile.spark.model_copy(update=settings)
    return profile.model_copy(update={"spark": spark})


def _fitting_cores(jvms: int) -> int:
    """Leave cores idle where the machine has too little memory for a Python worker on each."""
    total_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    free_mib = total_mib - max(_SYSTEM_MIB, total_mib // 5) - jvms * _JVM_MIB
    workers, cores = max(1, free_mib // _WORKER_MIB), len(os.sched_getaffinity(0))
    if workers < cores:
        _say(f"{total_mib} MiB of memory suffice for {workers} of the cores")
    return min(workers, cores)


def _promotion_folder(uri: str, *, region: str) -> PromotionFolder:
    location = Location.parse(uri)
    parent, _, promotion_id = location.key.rpartition("/")
    if parent != PROMOTIONS or not promotion_id:
        raise RequestError(
            f"{uri} is no promotion.",
            remedy=f"Write it as s3://{location.bucket}/{PROMOTIONS}/ID.",
        )
    storage = Storage(S3Settings(endpoint=AWS, bucket=location.bucket, region=region))
    return PromotionFolder(storage, promotion_id)


# --- telling -------------------------------------------------------------------------------------


def _first_status(folder: PromotionFolder, node: str) -> Status:
    """Go on from what the boot script has said: its stage is over."""
    with suppress(JobError):
        booted = folder.status()
        if booted is not None and booted.phase == "booting":
            took = datetime.now(UTC) - datetime.fromisoformat(booted.began_at)
            boot = Stage(BOOT_STAGE, seconds=round(took.total_seconds(), 1))
            return Status("running", node, began_at=booted.began_at, stages=(boot,))
    return Status("running", node)


class _Reporter:
    """Keeps the status, and writes it every few seconds."""

    def __init__(self, folder: PromotionFolder, first: Status) -> None:
        self._folder = folder
        self._status = first
        self._lock = threading.RLock()  # a signal may interrupt whoever holds it
        self._news = threading.Event()
        self._owner = Owner.this_process()

    @property
    def status(self) -> Status:
        """The status as it would be written now."""
        with self._lock:
            return self._status

    def change(self, *, now: bool = False, **fields: Any) -> Status:
        """Change fields of the status, and write it at once or with the next heartbeat."""
        with self._lock:
            self._status = replace(self._status, **fields)
            changed = self._status
        if now:
            self._news.set()
        return changed

    def begin_stage(self, title: str, total: int | None) -> None:
        with self._lock:
            self.change(stages=(*self._status.stages, Stage(title, total)))

    def change_stage(self, **fields: Any) -> str:
        """Change fields of the open stage, and return its title."""
        with self._lock:
            *before, stage = self._status.stages
            self.change(stages=(*before, replace(stage, **fields)))
            return stage.title

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Write the status every few seconds while the block runs, in a thread."""
        with _repeating(self._report, every=_HEARTBEAT_SECONDS, early=self._news):
            yield

    def find_run(self) -> str | None:
        """Return the id of the run that this process works on, once it has begun."""
        with suppress(ToolkitError):
            for record in islice(all_runs(self._folder.storage), _RUNS_CONSIDERED):
                if record.owner == self._owner:
                    return record.run_id
        return None

    def _report(self) -> None:
        status = self.status
        if status.run_id is None and len(status.stages) >= _STAGES_BEFORE_RUN:
            status = self.change(run_id=self.find_run())
        self._folder.report(status)


class _NodeProgress:
    """Passes what a run says on to the status, and to the log."""

    def __init__(self, reporter: _Reporter) -> None:
        self._reporter = reporter

    def begin(self, title: str, *, total: int | None = None) -> None:
        self._reporter.begin_stage(title, total)
        _say(f"{title} …" if total is None else f"{title}: {total} …")

    def advance_to(self, done: int) -> None:
        self._reporter.change_stage(done=done)

    def end(self, seconds: float) -> None:
        _say(f"{self._reporter.change_stage(seconds=seconds)}: {seconds:.1f} s")

    def say(self, text: str) -> None:
        _say(text)


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}\n")
    sys.stdout.flush()


def _say_everything_in(log: Path) -> None:
    """Lead stdout and stderr, of this process and of those that it starts, to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(target, stream.fileno())
    os.close(target)


def _insist(report: Callable[[], None]) -> None:
    for attempt in range(_LAST_WORDS):
        try:
            return report()
        except JobError:
            if attempt + 1 == _LAST_WORDS:
                raise
            time.sleep(_LAST_WORDS_PAUSE_SECONDS)
    return None


# --- ending early --------------------------------------------------------------------------------


class _EndedEarlyError(KeyboardInterrupt):
    """The work is to end now; a Ctrl-C for everything between here and the run."""

    def __init__(self, phase: Phase, reason: str) -> None:
        super().__init__(reason)
        self.phase = phase
        self.reason = reason

    def __repr__(self) -> str:
        return self.reason  # it stands as the error in the run's record


class _Interruptions:
    """Raises `_EndedEarlyError` in the main thread, at most once, whoever asks for it.

    Attributes
    ----------
    raised
        What was raised; None if nothing was.
    """

    def __init__(self) -> None:
        self.raised: _EndedEarlyError | None = None
        self._asked: _EndedEarlyError | None = None
        self._is_heeded = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals: outside `heeded` they are ignored, as the last status must be said."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Let the block be ended early."""
        self._is_heeded = True
        try:
            yield
        finally:
            self._is_heeded = False

    def ask(self, phase: Phase, reason: str) -> None:
        """End the work; from any thread."""
        self._asked = self._asked or _EndedEarlyError(phase, reason)
        # To the thread, not the process: only this wakes it from what it waits for.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        if not self._is_heeded:
            return
        self._is_heeded = False  # ending takes a while, and must not be interrupted itself
        self.raised = self._asked or _EndedEarlyError(
            "interrupted", f"The machine ends this node ({signal.Signals(number).name})"
        )
        raise self.raised


@contextmanager
def _watched(
    folder: PromotionFolder, reporter: _Reporter, interruptions: _Interruptions
) -> Iterator[None]:
    """Look out for what ends the work early, in threads: one may wait long for its answer."""
    notices = SpotNotices()

    def look_for_notice() -> None:
        if not reporter.status.notice and (notice := notices.ask()):
            reporter.change(notice=notice, now=True)
            interruptions.ask("interrupted", notice)

    def look_for_stop() -> None:
        if folder.is_asked_to_stop():
            interruptions.ask("stopped", "Stopped, as somebody has asked for in the bucket")

    with ExitStack() as watches:
        for look in (look_for_notice, look_for_stop):
            watches.enter_context(_repeating(look, every=_WATCH_SECONDS))
        yield


@contextmanager
def _notices_said() -> Iterator[None]:
    """Say once, in the log, that EC2 takes the node away: Spark does without it."""
    notices = SpotNotices()
    told = False

    def look_for_notice() -> None:
        nonlocal told
        if not told and (notice := notices.ask()):
            told = True
            _say(notice)

    with _repeating(look_for_notice, every=_WATCH_SECONDS):
        yield


@contextmanager
def _repeating(
    work: Callable[[], None], *, every: float, early: threading.Event | None = None
) -> Iterator[None]:
    """Do something now and every so many seconds while the block runs, in a thread.

    What fails is tried again the next time. `early` makes the next time come at once.
    """
    ending = False
    wake = early or threading.Event()

    def repeat() -> None:
        while not ending:
            try:
                work()
            except ToolkitError:
                pass  # the store is away; to say so in the log each time would help nobody
            except Exception:  # noqa: BLE001 - a silent thread would make this node look dead
                traceback.print_exc()
            wake.wait(every)
            wake.clear()

    thread = threading.Thread(target=repeat, name=work.__name__, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending = True
        wake.set()
        thread.join()
