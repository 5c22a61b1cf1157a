"""A rehearsal with a node that only says what a test has it say: its job, its end, its traces."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from tests.support.clock import FastClock
from tests.support.progress import Told
from tests.support.promotion import run_record, small_bundle
from toolkit.cloud.bundle import PROMOTIONS, Bundle
from toolkit.cloud.job import JOB, JobDescription
from toolkit.cloud.rehearsal import REHEARSALS, Rehearsal, rehearse
from toolkit.cloud.source import ImageSource, find_images
from toolkit.cloud.status import PromotionFolder, Stage, Status
from toolkit.errors import JobError
from toolkit.runs import Owner, RunRecord
from toolkit.storage import Location, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from toolkit.cloud.aws.policy import Policy
    from toolkit.models import PreparedModel
    from toolkit.profiles import Profile

__all__ = ["run_record", "small_bundle"]  # fixtures


@dataclass
class Machine:
    """A machine that does one thing with its promotion, at the first wait."""

    storage: Storage
    log: Path
    acts: Callable[[PromotionFolder], int | None]
    script: str = ""
    policy: dict = field(default_factory=dict)
    code: int | None = None
    job: JobDescription | None = None

    @contextmanager
    def __call__(self, script: str, *, policy: Policy) -> Iterator[Machine]:
        self.script, self.policy = script, json.loads(policy.to_json())
        yield self

    def exit_code(self) -> int | None:
        return self.code

    def act(self) -> None:
        if self.job is None:
            (promotion,) = (
                name
                for name in self.storage.folders(self.storage.location(PROMOTIONS))
                if f"promotion={name}\n" in self.script
            )
            folder = PromotionFolder(self.storage, promotion)
            self.job = JobDescription.from_json(
                self.storage.read(folder.file(JOB)), root=self.log.parent
            )
            self.code = self.acts(folder)


@pytest.fixture
def source(aws: Profile, mixed_folder: Path) -> ImageSource:
    return find_images(str(mixed_folder), Storage(aws.s3), limit=None)


@pytest.fixture
def job_there(model: PreparedModel, aws: Profile, source: ImageSource) -> JobDescription:
    """Return the job of the promotion, which asks for more than a sample has."""
    job = JobDescription.of(
        model,
        aws,
        images=source.uri,
        weights="imagenet",
        components=400,
        limit=10_000,
        output="s3a://nobodys-fruits/results",
    )
    return replace(job, nodes=3)


@pytest.fixture
def rehearsed(
    storage: Storage,
    source: ImageSource,
    job_there: JobDescription,
    small_bundle: Callable[..., Bundle],
    aws: Profile,
    tmp_path: Path,
) -> Callable[..., tuple[Rehearsal, Machine, Told]]:
    """Return what rehearses on a machine that acts as a function says."""

    def call(acts: Callable[[PromotionFolder], int | None], *, log: str = ""):
        machine = Machine(storage, tmp_path / "the.log", acts)
        if log:
            machine.log.write_text(log)
        clock, progress = FastClock(at_least=5, meanwhile=machine.act), Told()
        done = rehearse(
            small_bundle(tmp_path, job_there, profile=aws),
            job_there,
            source,
            storage=storage,
            stand_in=machine,
            progress=progress,
            on_line=progress.said.append,
            images=13,
            clock=clock.clock,
        )
        return done, machine, progress

    return call


@pytest.fixture(autouse=True)
def _leaves_nothing(storage: Storage) -> Iterator[None]:
    before = storage.folders(storage.location(PROMOTIONS))
    yield
    assert storage.folders(storage.location(PROMOTIONS)) == before
    assert storage.folders(storage.location(REHEARSALS)) == []


def test_job_is_done_here_on_a_sample_and_nothing_else(
    rehearsed, storage, source, job_there, run_record
):
    def works(folder: PromotionFolder) -> int:
        job = json.loads(storage.read(folder.file(JOB)))
        where = Location.parse(job["images"])
        there.update(
            {
                each.location.key.removeprefix(f"{where.key}/"): storage.read(each.location)
                for each in storage.objects(where)
            }
        )
        storage.write(folder.file("result.json"), run_record.to_json().encode())
        stages = (Stage("Features", total=13, done=13, seconds=1.0),)
        folder.report(Status("done", "i-1", stages=stages, run_id=run_record.run_id))
        return 0

    there: dict[str, bytes] = {}
    done, machine, told = rehearsed(works)
    assert done.record == RunRecord.from_json(run_record.to_json())
    # Of a sample that is spread over all images, with their content, broken ones as well.
    assert len(done.sample) == 13
    assert {f"{source.uri}/{key}" for key in done.sample} == {
        image.origin for image in source.sample(13)
    }
    assert there == {source.key(image): source.read(image) for image in source.sample(13)}
    # The job of the promotion, as far as it can be done here.
    job = machine.job
    assert (job.bucket, job.region) == (storage.name, storage.settings.region)
    assert (job.limit, job.output, job.nodes) == (None, None, 1)
    assert (job.model.key, job.weights) == (job_there.model.key, job_there.weights)
    assert job.components == 0.95
    assert any("13 images may not have 400 components" in text for text in told.said)
    # The node of the rehearsal may read the sample, and not the promotion's images.
    allowed = json.dumps(machine.policy)
    assert REHEARSALS in allowed
    assert "nobodys-fruits" not in allowed
    assert told.titles == ["Images of the rehearsal: 13", "Features: 13"]


def test_failure_of_the_node_is_told_with_the_end_of_its_log(rehearsed, tmp_path):
    def fails(folder: PromotionFolder) -> int:
        folder.report(Status("failed", "i-1", error="The bundle is damaged.", remedy="Mend it."))
        return 1

    log = "".join(f"line {number}\n" for number in range(40))
    with pytest.raises(JobError) as failed:
        rehearsed(fails, log=log)
    assert failed.value.message.startswith("The rehearsal failed: The bundle is damaged. The last")
    assert failed.value.message.endswith("\n  | line 39")
    assert "line 20" not in failed.value.message
    assert failed.value.remedy == f"Mend it. The whole log: {tmp_path / 'the.log'}"


def test_boot_script_that_ends_without_a_word_is_not_waited_for(rehearsed):
    with pytest.raises(JobError, match="script ended with exit code 7"):
        rehearsed(lambda _: 7, log="quite broken\n")


def test_node_that_falls_silent_fails_the_rehearsal(rehearsed):
    def begins(folder: PromotionFolder) -> None:
        folder.report(Status("running", "i-1"))

    with pytest.raises(JobError, match="The rehearsal failed: it has been silent for 300 s"):
        rehearsed(begins)


def test_interrupt_removes_what_it_had(rehearsed):
    def interrupt(_: PromotionFolder) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearsed(interrupt)


def test_rehearsals_of_dead_processes_are_removed_and_those_that_go_on_are_not(rehearsed, storage):
    def interrupt(_: PromotionFolder) -> None:
        raise KeyboardInterrupt

    gone = replace(Owner.this_process(), started=1.0)
    for name, owner in {"gone": gone, "going-on": Owner.this_process()}.items():
        place = storage.location(REHEARSALS, name)
        storage.write(place / "owner.json", json.dumps(asdict(owner)).encode())
        storage.write(place / "images" / "1.jpg", b"image")
        storage.write(PromotionFolder(storage, name).file("status.json"), b"{}")
    storage.write(storage.location(REHEARSALS, "half", "images", "1.jpg"), b"image")
    with pytest.raises(KeyboardInterrupt):
        rehearsed(interrupt)
    assert storage.folders(storage.location(REHEARSALS)) == ["going-on"]
    promotions = storage.folders(storage.location(PROMOTIONS))
    assert ("going-on" in promotions, "gone" in promotions) == (True, False)
    storage.delete_all(storage.location(REHEARSALS))
    storage.delete_all(PromotionFolder(storage, "going-on").location)
