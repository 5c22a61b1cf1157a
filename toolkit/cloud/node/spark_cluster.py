"""Spark on the nodes of a promotion: a master on the first one, a worker on each, one secret.

The nodes are those of one launch and know each other by its reservation: where a master was that an
earlier launch of the promotion had does not concern them. What their Spark processes say to each
other is authenticated and encrypted with a secret of the promotion, which EC2's parameter store
keeps. On a node it is in a file that its owner alone reads, and Spark hands it to executors in
their environment: it is on no command line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import ProxyHandler, build_opener

from toolkit.cloud.aws.account import AwsAccount, aws_errors
from toolkit.cloud.aws.names import spark_secret_name
from toolkit.cloud.aws.patience import repeat
from toolkit.cloud.clock import MACHINE_CLOCK, Clock
from toolkit.cloud.documents import to_document
from toolkit.cloud.node.metadata import InstanceMetadata
from toolkit.errors import JobError
from toolkit.folders import state_folder
from toolkit.runs import now
from toolkit.session import FOREIGN, LIGHT_JVM, LOG4J
from toolkit.storage import ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toolkit.cloud.status import PromotionFolder, Status

__all__ = ["MASTER", "WAIT_SECONDS", "Cluster", "Master", "Seat", "SparkNode"]

MASTER = "master.json"
"""The file in the promotion's folder that leads the other nodes to the first one."""

WAIT_SECONDS = 300.0
"""How long the first node waits for the others before the work begins: EC2 boots the nodes of a
launch within a minute of each other, and each installs the same packages."""

_SILENT_SECONDS = 300.0  # a first node that has said nothing so long says nothing more
_LOOK_SECONDS = 2.0
_START_SECONDS = 60.0
_END_SECONDS = 10.0
_PAGE_SECONDS = 5.0
# What a new role may, AWS has in force everywhere within seconds; it names no limit.
_SECRET_SECONDS = 120.0
_DENIED = "AccessDeniedException"

# https://spark.apache.org/docs/latest/security.html. Not its cipher AES/GCM/NoPadding, which fails
# with the second message of a channel in Spark 4.1.1 (SPARK-56227). What executors write to the
# disk, the disk encrypts (launch.py).
_PROPERTIES = """\
spark.authenticate                       true
spark.authenticate.secret                {secret}
spark.network.crypto.enabled             true
spark.network.crypto.authEngineVersion   2
spark.network.crypto.saslFallback        false
# The driver, as executors reach it. Nobody looks at its pages, which know no secret.
spark.driver.host                        {address}
spark.driver.bindAddress                 {address}
spark.ui.enabled                         false
# A second way in for jobs, which knows no secret.
spark.master.rest.enabled                false
# The port that was announced, or none.
spark.port.maxRetries                    0
"""
# Who has come and gone, beside warnings.
_LOGGED = """\
logger.deploy.name = org.apache.spark.deploy
logger.deploy.level = info
# Hadoop's native library is not part of pyspark, and not needed.
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
"""

# The nodes are in one network: whatever proxy the environment names is not between them.
_DIRECT = build_opener(ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a node is.

    Attributes
    ----------
    address
        Its address in the network of the nodes.
    reservation
        What EC2 calls the launch that started it, and with it the other nodes.
    region
        Its AWS region.
    """

    address: str
    reservation: str
    region: str

    @classmethod
    def here(cls) -> Seat:
        """Ask the instance's metadata service.

        Raises
        ------
        JobError
            It does not answer.
        """
        metadata = InstanceMetadata()
        try:
            return cls(
                metadata.get("local-ipv4"),
                metadata.get("reservation-id"),
                metadata.get("placement/region"),
            )
        except OSError as exc:
            raise JobError(
                f"The instance's metadata service does not say where this node is: {exc}",
                remedy="Several nodes need instances of EC2: promote again.",
            ) from exc


@dataclass(frozen=True, slots=True)
class Master:
    """What ``master.json`` holds.

    Attributes
    ----------
    host, port
        Where Spark's master listens.
    node
        Name of the node: whose status counts.
    reservation
        Of whose nodes it is the master.
    began_at
        Since when: ISO 8601 in UTC.
    """

    host: str
    port: int
    node: str
    reservation: str
    began_at: str = field(default_factory=now)

    @property
    def url(self) -> str:
        """The master, as Spark writes it."""
        return f"spark://{self.host}:{self.port}"

    @classmethod
    def find(cls, folder: PromotionFolder, *, reservation: str) -> Master | None:
        """Return the master of a launch; None if it has not announced itself.

        Raises
        ------
        JobError
            The store can't be reached, or what is there says of no master.
        """
        try:
            fields = json.loads(folder.storage.read(folder.file(MASTER)))
            found = cls(**fields)
        except ObjectNotFound:
            return None
        except (TypeError, ValueError) as exc:
            raise JobError(f"{folder.file(MASTER).uri} says of no master: {exc!r}") from exc
        return found if found.reservation == reservation else None

    def announce(self, folder: PromotionFolder) -> None:
        """Write it for the other nodes.

        Raises
        ------
        JobError
            The store can't be reached or refuses.
        """
        folder.storage.write(folder.file(MASTER), to_document(self).encode())


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster to work on.

    Attributes
    ----------
    url
        Its master.
    properties
        File of the properties that the driver needs; it holds the secret.
    joined
        How many nodes have a worker. Others may still come.
    """

    url: str
    properties: Path
    joined: int


@dataclass(frozen=True, kw_only=True)
class SparkNode:
    """A node of a cluster.

    Parameters
    ----------
    folder
        The promotion.
    name
        Name of the node.
    seat
        Where it is.
    cores
        Tasks that its worker runs at a time.
    memory
        Heap of its executor, in Spark's notation.
    log
        File that takes what Spark says here.
    say
        Told what happens.
    home
        Spark's own files here, removed at the end.
    clock
        Measures how long the other nodes take, and makes the pauses between two looks.
    """

    folder: PromotionFolder
    name: str
    seat: Seat
    cores: int
    memory: str
    log: Path
    say: Callable[[str], None]
    home: Path = field(default_factory=lambda: state_folder() / "spark")
    clock: Clock = MACHINE_CLOCK

    @contextmanager
    def leading(self, *, nodes: int, wait_seconds: float = WAIT_SECONDS) -> Iterator[Cluster]:
        """Run the master and a worker, and give the cluster when the other nodes have come.

        Parameters
        ----------
        nodes
            How many there should be.
        wait_seconds
            After which the work begins with those that there are.

        Raises
        ------
        JobError
            Spark does not start here, or the secret can't be read.
        """
        address = self.seat.address
        with ExitStack() as exits:
            properties = exits.enter_context(self._files())
            port, page_port = _free_ports(address, 2)
            listens = ("--port", str(port), "--webui-port", str(page_port))
            master = exits.enter_context(self._spark("master.Master", properties, *listens))
            page = f"http://{address}:{page_port}/json/"
            self._wait_for_page(page, master)
            announced = Master(address, port, self.name, self.seat.reservation)
            announced.announce(self.folder)
            self.say(f"Spark's master is {announced.url}")
            exits.enter_context(self._worker(announced, properties))
            joined = self._wait_for_workers(page, nodes=nodes, seconds=wait_seconds)
            yield Cluster(announced.url, properties, joined)

    def work(self, *, silent_seconds: float = _SILENT_SECONDS) -> str:
        """Run a worker until the first node's work is over, and return why it is.

        Parameters
        ----------
        silent_seconds
            After how long a silence the first node's work is over.

        Raises
        ------
        JobError
            Spark's worker ends by itself, or the secret can't be read.
        """
        first = _FirstNode(self.folder, silent_seconds, self.clock)
        with self._files() as properties:
            while (master := self._find_master()) is None:
                if over := first.why_over(None):
                    return over
                self.clock.sleep(_LOOK_SECONDS)
            self.say(f"Spark's master is {master.url} on node {master.node}")
            with self._worker(master, properties) as worker:
                while not (over := first.why_over(master)):
                    if (code := worker.poll()) is not None:
                        raise JobError(f"Spark's worker has ended with exit code {code}.")
                    self.clock.sleep(_LOOK_SECONDS)
                return over

    def _find_master(self) -> Master | None:
        with suppress(JobError):  # the store is away; the first node may announce itself again
            return Master.find(self.folder, reservation=self.seat.reservation)
        return None

    # --- the others ---

    def _wait_for_workers(self, page: str, *, nodes: int, seconds: float) -> int:
        deadline = self.clock.now() + seconds
        told = 0
        while True:
            joined = _workers_alive(page)
            if joined != told:
                self.say(f"{joined} of {nodes} nodes have a Spark worker")
                told = joined
            if joined >= nodes:
                return joined
            if self.clock.now() >= deadline:
                break
            self.clock.sleep(_LOOK_SECONDS / 4)
        if not joined:
            raise JobError(
                f"No Spark worker has come within {seconds:.0f} s, not even that of this node.",
                remedy="The log of this node has its messages.",
            )
        self.say(
            f"Only {joined} of {nodes} nodes have come within {seconds:.0f} s: the work begins "
            "without the others"
        )
        return joined

    # --- Spark's processes ---

    @contextmanager
    def _files(self) -> Iterator[Path]:
        """Give the file of the properties, and remove it at the end."""
        secret = _secret(self.folder.promotion_id, self.seat.region)
        self._conf.mkdir(parents=True, exist_ok=True)
        # Executors have their class path from the worker, and with it this folder.
        log4j = LOG4J.format(log=self.log) + _LOGGED
        self._conf.joinpath("log4j2.properties").write_text(log4j, encoding="utf-8")
        properties = self.home / "cluster.properties"
        properties.unlink(missing_ok=True)  # one that is there keeps its mode
        only_ours = os.open(properties, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(only_ours, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
                file.write(_PROPERTIES.format(secret=secret, address=self.seat.address))
            yield properties
        finally:
            properties.unlink(missing_ok=True)
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def _conf(self) -> Path:
        return self.home / "conf"

    @contextmanager
    def _worker(self, master: Master, properties: Path) -> Iterator[subprocess.Popen[bytes]]:
        offers = ("--cores", str(self.cores), "--memory", self.memory)
        folder = ("--work-dir", str(self.home / "work"), "--webui-port", "0")
        with self._spark("worker.Worker", properties, *offers, *folder, master.url) as process:
            yield process

    @contextmanager
    def _spark(
        self, name: str, properties: Path, *arguments: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run one of Spark's own processes; in our session, so that whoever ends that ends all."""
        spark = _spark_home()
        command = [str(spark / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}"]
        common = ["--properties-file", str(properties), "--host", self.seat.address]
        process = subprocess.Popen(
            [*command, *common, *arguments],
            env=self._environment(spark),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _environment(self, spark: Path) -> dict[str, str]:
        # Executors and their Python workers inherit this from the worker.
        kept = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        return kept | {
            "SPARK_HOME": str(spark),
            "SPARK_CONF_DIR": str(self._conf),
            "SPARK_LOCAL_DIRS": str(self.home / "scratch"),
            "SPARK_LOCAL_IP": self.seat.address,
            "SPARK_PUBLIC_DNS": self.seat.address,
            "SPARK_DAEMON_MEMORY": "512m",
            "SPARK_DAEMON_JAVA_OPTS": LIGHT_JVM,
            "SPARK_LAUNCHER_OPTS": LIGHT_JVM,
        }

    def _wait_for_page(self, page: str, master: subprocess.Popen[bytes]) -> None:
        deadline = self.clock.now() + _START_SECONDS
        while _page(page) is None:
            if master.poll() is not None or self.clock.now() >= deadline:
                raise JobError(
                    f"Spark's master does not start on {self.seat.address}.",
                    remedy="The log of this node has its messages.",
                )
            self.clock.sleep(_LOOK_SECONDS / 10)


class _FirstNode:
    """Judges, from another node, whether the first one's work goes on."""

    def __init__(
        self, folder: PromotionFolder, silent_seconds: float, clock: Clock = MACHINE_CLOCK
    ) -> None:
        self._folder = folder
        self._silent_seconds = silent_seconds
        self._clock = clock
        self._last: Status | None = None
        self._changed = self._clock.now()

    def why_over(self, master: Master | None) -> str | None:
        """Say why there is nothing more to do; else None.

        Once the master is known, what another node says does not count: that of a later launch of
        the promotion, when the master is dead.
        """
        with suppress(JobError):  # a store that is away is silent, too
            if self._folder.is_asked_to_stop():
                return "somebody has asked for it in the bucket"
            status = self._folder.status()
            if status is not None and (master is None or status.node == master.node):
                if status.is_final:
                    return f"the first node's is {status.phase}"
                if status != self._last:
                    self._last, self._changed = status, self._clock.now()
        silence = self._clock.now() - self._changed
        if silence >= self._silent_seconds:
            return f"the first node has been silent for {silence:.0f} s"
        return None


def _secret(promotion: str, region: str) -> str:
    name = spark_secret_name(promotion)

    def ask() -> str:
        with aws_errors(doing=f"read the secret {name}"):
            answer = AwsAccount(region).client("ssm").get_parameter(Name=name, WithDecryption=True)
        return str(answer["Parameter"]["Value"])

    return repeat(ask, again=lambda exc: exc.code == _DENIED, seconds=_SECRET_SECONDS)


def _workers_alive(page: str) -> int:
    """Return how many nodes have a worker, as the master knows it."""
    try:
        known = json.loads(_page(page) or b"")["workers"]
        return len({each["host"] for each in known if each["state"] == "ALIVE"})
    except (ValueError, KeyError, TypeError):
        return 0


def _page(url: str) -> bytes | None:
    try:
        with _DIRECT.open(url, timeout=_PAGE_SECONDS) as answer:
            content: bytes = answer.read()
    except OSError:
        return None
    return content


def _free_ports(address: str, count: int) -> list[int]:
    with ExitStack() as exits:
        sockets = [
            exits.enter_context(closing(socket.create_server((address, 0)))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


def _spark_home() -> Path:
    found = importlib.util.find_spec("pyspark")
    if found is None or not found.submodule_search_locations:
        raise JobError("pyspark is not installed on this node.")
    return Path(found.submodule_search_locations[0])
