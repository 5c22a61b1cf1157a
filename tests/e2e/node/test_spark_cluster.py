"""Spark on two nodes: two processes with homes and loopback addresses of their own, real Spark."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.node_surroundings import Surroundings
from tests.support.nodes import Node
from tests.support.spark_nodes import NAMES, REGION, RESERVATION, SECRET
from tests.support.store_gate import Gate, gate_before
from tests.support.waiting import eventually
from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.names import spark_secret_name
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.clock import Clock
from toolkit.cloud.node.spark_cluster import Master, SparkNode
from toolkit.errors import JobError
from toolkit.runs import RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from toolkit.storage import Location, Storage

IMAGES = 240  # in ten parts: some seconds of two cores
MAINS = ("deploy.master.Master", "deploy.worker.Worker", "ExecutorBackend", "deploy.SparkSubmit")


@dataclass
class ClusterNode(Node):
    """One of two nodes."""

    index: int = 0
    ssm: str = ""

    @property
    def name(self) -> str:
        return NAMES[self.index]

    @property
    def address(self) -> str:
        return f"127.0.0.{2 + self.index}"

    @property
    def env(self) -> dict[str, str]:
        # Of two nodes with two cores each a run takes one core.
        own = {"AWS_ENDPOINT_URL_SSM": self.ssm, "TOOLKIT_SPARK__CORES": "2"}
        return super().env | own

    @property
    def imds(self) -> dict[str, str]:
        return {
            "ami-launch-index": str(self.index),
            "local-ipv4": self.address,
            "reservation-id": RESERVATION,
            "placement-region": REGION,
        }

    @property
    def spark_files(self) -> Path:
        return self.surroundings.folder / "state" / "spark"

    def said(self) -> str:
        return text(self.log)


@dataclass
class Seen:
    """What the processes of a node look like, gathered while it works."""

    pid: int

    def __post_init__(self) -> None:
        self.commands: set[str] = set()
        self.listening: set[tuple[str, str]] = set()

    def look(self) -> None:
        for process in _family(self.pid):
            try:
                command = " ".join(process.cmdline())
                sockets = process.net_connections("tcp")
            except psutil.Error:
                continue
            self.commands.add(command)
            if "org.apache.spark.launcher" not in command:
                main = next((name for name in MAINS if name in command), None)
                self.listening |= {
                    (main, each.laddr.ip.removeprefix("::ffff:"))
                    for each in sockets
                    if main and each.status == psutil.CONN_LISTEN
                }

    def has(self, word: str) -> bool:
        return any(word in command for command in self.commands)


def _family(pid: int) -> list[psutil.Process]:
    try:
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _works(pid: int) -> bool:
    """Whether an executor of the node has begun a task: it has started Python."""
    for process in _family(pid):
        with suppress(psutil.Error):  # it has ended, or nobody asks how it has
            if "pyspark.daemon" in process.cmdline():
                return True
    return False


@pytest.fixture(scope="module")
def pictures(storage: Storage, sample_files: list[Path]) -> Location:
    where = storage.location("images", "of-the-nodes")
    for number in range(IMAGES):
        file = sample_files[number % len(sample_files)]
        storage.upload(file, where / file.parent.name / f"{number}.jpg")
    return where


@pytest.fixture
def two_nodes(
    begin: Callable[..., Node],
    storage: Storage,
    moto_url: str,
    parameters,
    tmp_path: Path,
) -> Callable[..., tuple[ClusterNode, ClusterNode]]:
    def call(images: Location, *, gate: Gate | None = None):
        first = begin(images, nodes=2, components=5)
        name = spark_secret_name(first.folder.promotion_id)
        parameters.put_parameter(Name=name, Type="SecureString", Value=SECRET)
        nodes = []
        for index, folder in enumerate((tmp_path, tmp_path / "second")):
            folder.mkdir(exist_ok=True)
            place = Surroundings(folder, storage) if index else first.surroundings
            node = ClusterNode(first.folder, first.bundle, place, gate, index=index, ssm=moto_url)
            node.options = ("--node", node.name, "--index", str(index))
            nodes.append(node)
        return tuple(nodes)

    return call


def text(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def contents(storage: Storage, folder: Location) -> dict[str, bytes]:
    return {each.location.key: storage.read(each.location) for each in storage.objects(folder)}


@pytest.mark.timeout(600)
def test_two_nodes_share_the_work_and_their_secret_stays_between_them(two_nodes, pictures, storage):
    first, second = two_nodes(pictures)
    may = node_policy(
        Identity("123456789012", "arn:aws:iam::123456789012:user/ann"),
        region=REGION,
        bucket=pictures.bucket,
        promotion=first.folder.promotion_id,
        has_secret=False,  # MinIO takes no statement on another service
    )
    role = first.surroundings.role(policy=json.loads(may.to_json()))
    with (
        first.surroundings.metadata(role, values=first.imds),
        second.surroundings.metadata(role, values=second.imds),
        first.working() as one,
        second.working() as two,
    ):
        seen = [Seen(one.pid), Seen(two.pid)]
        modes = set()
        while one.poll() is None:
            for node, each in zip((first, second), seen, strict=True):
                each.look()
                properties = node.spark_files / "cluster.properties"
                try:
                    content, mode = properties.read_text(), properties.stat().st_mode
                except FileNotFoundError:
                    continue
                if content:
                    assert f" {SECRET}\n" in content
                    modes.add((node.name, stat.S_IMODE(mode)))
            time.sleep(0.3)
        assert one.wait(timeout=60) == 0, first.said()
        assert two.wait(timeout=60) == 0, second.said()

    status = first.folder.status()
    assert (status.phase, status.node) == ("done", first.name)
    assert "Spark on 2 of 2 nodes" in [stage.title for stage in status.stages]
    record = RunRecord.from_json(storage.read(first.folder.file("result.json")))
    assert (record.counts.featurized, record.components) == (IMAGES, 5)

    # Each had an executor, which had work: for that it starts Python.
    for node, each in zip((first, second), seen, strict=True):
        assert each.has("CoarseGrainedExecutorBackend")
        assert each.has("pyspark.daemon")
        mains = MAINS if node is first else ("deploy.worker.Worker", "ExecutorBackend")
        for_its_python = {("deploy.SparkSubmit", "127.0.0.1")} if node is first else set()
        assert each.listening == {(main, node.address) for main in mains} | for_its_python
        # Said before the executor begins; that it has ended, a worker may not live to say.
        assert "Asked to launch executor app-" in node.said()
    assert "the first node's is done" in second.said()

    # The secret is on no command line, in no log, and nowhere in the bucket.
    assert modes == {(first.name, 0o600), (second.name, 0o600)}
    assert not any(each.has(SECRET) for each in seen)
    assert SECRET not in first.said() + second.said()
    written = contents(storage, first.folder.location) | contents(storage, storage.location("runs"))
    assert {"master.json", "status.json"} <= {key.rpartition("/")[2] for key in written}
    for name in NAMES:
        assert any(f"/log/{name}/" in key for key in written)
    assert not [key for key, content in written.items() if SECRET.encode() in content]
    for node in (first, second):
        assert not node.spark_files.exists()
        leftovers = [file for file in node.surroundings.folder.rglob("*") if file.is_file()]
        assert not [file for file in leftovers if SECRET.encode() in file.read_bytes()]


@pytest.mark.timeout(600)
def test_work_goes_on_when_the_second_node_dies(two_nodes, pictures, storage):
    with gate_before(storage, pictures, let_through=IMAGES // 2) as gate, ExitStack() as exits:
        first, second = two_nodes(pictures, gate=gate)
        exits.enter_context(first.surroundings.metadata(values=first.imds))
        exits.enter_context(second.surroundings.metadata(values=second.imds))
        one, two = (exits.enter_context(node.working()) for node in (first, second))
        eventually(lambda: _works(two.pid) or one.poll() is not None)
        os.killpg(two.pid, signal.SIGKILL)
        gate.open()
        assert one.wait(timeout=240) == 0, first.said()
        assert two.wait(timeout=10) == -signal.SIGKILL
    assert "Lost executor" in first.said()
    assert first.folder.status().phase == "done"
    record = RunRecord.from_json(storage.read(first.folder.file("result.json")))
    assert record.counts.featurized == IMAGES


# --- without a job -------------------------------------------------------------------------------


@contextmanager
def intruding(node: SparkNode, master: Master, name: str, value: str) -> Iterator[Path]:
    """Run a worker that differs in one property; give its log."""
    with node._files() as properties:
        changed, times = re.subn(
            rf"^({re.escape(name)} +)\S+$",
            rf"\g<1>{value}",
            properties.read_text(),
            flags=re.MULTILINE,
        )
        assert times == 1
        properties.write_text(changed)
        with node._worker(master, properties):
            yield node.log


@pytest.mark.timeout(300)
def test_who_lacks_the_secret_or_does_not_encrypt_is_not_let_in_and_the_first_goes_on_alone(
    node, folder
):
    first = node(0)
    said: list[str] = []

    def is_announced() -> bool:
        return Master.find(folder, reservation=RESERVATION) is not None

    def intrude() -> list[str]:
        eventually(is_announced, within=60)
        master = Master.find(folder, reservation=RESERVATION)
        with (
            intruding(node(1), master, "spark.authenticate.secret", "another") as stranger,
            intruding(node(2), master, "spark.network.crypto.enabled", "false") as plain,
        ):
            eventually(lambda: "Authentication failed" in text(stranger), within=60)
            eventually(lambda: "Unknown challenge message" in text(plain), within=60)
        return [text(each) for each in (stranger, plain)]

    # Now: whoever opens a store of ours hides AWS's variables meanwhile, from all threads.
    assert not is_announced()
    with ThreadPoolExecutor() as pool:
        intruders = pool.submit(intrude)
        # The time for the others is over as soon as those have been refused.
        clock = Clock(lambda: time.monotonic() + 1000 * intruders.done(), time.sleep)
        leading = replace(first, say=said.append, clock=clock).leading(nodes=3)
        with leading as cluster:
            assert cluster.joined == 1
            assert stat.S_IMODE(cluster.properties.stat().st_mode) == 0o600
            refused = intruders.result()
    assert said[-1] == (
        "Only 1 of 3 nodes have come within 300 s: the work begins without the others"
    )
    assert f"Registering worker {first.seat.address}:" in text(first.log)
    assert text(first.log).count("Registering worker") == 1
    assert not any("Successfully registered" in each for each in refused)
    assert not first.home.exists()


def test_worker_that_ends_by_itself_is_no_end_of_the_work(node, folder):
    Master("127.0.0.2", 7077, "i-0", RESERVATION).announce(folder)
    helper = replace(node(1), memory="much")
    with pytest.raises(JobError, match=r"Spark's worker has ended with exit code \d+"):
        helper.work()
    assert not helper.home.exists()
