"""What goes wrong with a promotion: nothing is lost, and nothing is left."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from localstack.imds import role_credentials
from localstack.minio import Credentials
from tests.support.aws_proxy import Asked, denial, in_front_of, refusal
from tests.support.promotion import LAUNCH, Scripted
from tests.support.waiting import eventually
from toolkit.cloud import follow, promotion, sweep
from toolkit.cloud.aws.account import AccessDeniedError, CapacityError, Identity
from toolkit.cloud.aws.policy import Policy, Statement, person_policy
from toolkit.cloud.bundle import make_bundle
from toolkit.cloud.follow import NodeDiedError
from toolkit.cloud.journal import load_record
from toolkit.cloud.promotion import Here, come_back, promote, resume
from toolkit.cloud.status import PromotionFolder, Status
from toolkit.errors import JobError, RequestError
from toolkit.pipeline import RunRequest
from toolkit.profiles import load_profile
from toolkit.runs import RunFolder, new_run_id

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.cloud.bundle import Bundle
    from toolkit.cloud.plan import Plan
    from toolkit.cloud.preflight import Preflight
    from toolkit.profiles import Profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

HERE = Here(None, 2)


class Desk:
    """Agrees to everything, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.plans: list[Plan] = []

    @property
    def progress(self) -> Desk:
        return self

    def begin(self, title: str, *, total: int | None = None) -> None:
        pass

    def advance_to(self, done: int) -> None:
        pass

    def end(self, seconds: float) -> None:
        pass

    def say(self, text: str) -> None:
        self.told.append(text)

    def log_line(self, line: str) -> None:
        self.told.append(line)

    def rehearsed(self, rehearsal: object) -> None:
        pass

    def checked(self, report: Preflight) -> None:
        pass

    def planned(self, plan: Plan, *, asks: bool) -> bool:
        self.plans.append(plan)
        return asks


@pytest.fixture
def mine(cloud) -> Profile:
    return load_profile("aws", config_file=cloud.folder / "toolkit.toml")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Return the bundles that have been made: always of the same checkout and network."""
    return {}


@pytest.fixture
def request_(mixed_folder: Path) -> RunRequest:
    return RunRequest(images=str(mixed_folder), weights="imagenet")


@pytest.fixture
def promoted(cloud, mine, request_, bundles, monkeypatch, tmp_path_factory):
    """Return a function that promotes, less patiently than people."""
    folder = tmp_path_factory.getbasetemp() / "bundle of the faults"

    def made_once(_: Path, job, *, profile: Profile) -> Bundle:
        if "made" not in bundles:
            bundles["made"] = make_bundle(folder, job, profile=profile)
        return bundles["made"]

    monkeypatch.setenv("TOOLKIT_HOME", str(cloud.folder / "state"))
    monkeypatch.setenv("TOOLKIT_CACHE", cloud.env["TOOLKIT_CACHE"])
    monkeypatch.setattr(promotion, "make_bundle", made_once)
    quick = partial(follow.follow, silent_seconds=3, boot_seconds=4, poll_seconds=0.1)
    monkeypatch.setattr(promotion, "follow", quick)
    monkeypatch.setattr(promotion, "sweep", partial(sweep.sweep, settled=0.3))
    monkeypatch.setattr(follow, "_LAST_WORDS_SECONDS", 1.0)
    monkeypatch.setattr(follow, "_INSTANCE_EVERY_SECONDS", 0.5)
    monkeypatch.setattr(follow, "_STORE_SECONDS", 2.0)

    def call(desk: Desk | None = None, **changes: object):
        return promote(
            replace(request_, **changes), mine, here=HERE, desk=desk or Desk(), rehearsing=False
        )

    call.images = request_.images
    return call


def really(asked: Asked, action: str) -> bool:
    """Whether a request asks for an action, and not only whether it would be allowed."""
    return asked.name == action and asked.parameters.get("DryRun") != "true"


# --- before anything is started ---


def test_without_credentials_nothing_is_sent_anywhere(cloud, promoted, mine, request_, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(RequestError) as refused:
        promoted()
    assert "credentials" in str(refused.value)
    # It does not come to a rehearsal, either, which this machine could not have.
    with pytest.raises(RequestError, match="credentials"):
        promote(request_, mine, here=HERE, desk=Desk())
    assert cloud.ids == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bucket": "no-such-orchard"}, "There is no bucket no-such-orchard"),
        ({"region": "eu-west-3"}, "is in us-east-1, and the setting s3.region says eu-west-3"),
    ],
    ids=["missing", "in another region"],
)
def test_wrong_bucket_is_refused_before_anything_is_sent(
    cloud, promoted, mine, request_, change, problem
):
    wrong = mine.model_copy(update={"s3": mine.s3.model_copy(update=change)})
    with pytest.raises(RequestError) as refused:
        promote(request_, wrong, here=HERE, desk=Desk(), rehearsing=False)
    assert problem in str(refused.value)
    assert (cloud.ids, cloud.left()) == ([], [])


@pytest.fixture
def may(cloud, monkeypatch):
    """Return a function that limits what may be done in the bucket, from now on."""

    def limit(policy: Policy) -> None:
        on_s3 = [
            each
            for each in policy.statements
            if all(action.startswith("s3:") for action in each.actions)
        ]
        settings = cloud.storage.settings
        limited = role_credentials(
            settings.endpoint,
            Credentials(*settings.credentials()),
            policy=json.loads(Policy(tuple(on_s3)).to_json()),
        )
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", limited.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", limited.secret_access_key)
        monkeypatch.setenv("AWS_SESSION_TOKEN", limited.session_token)

    return limit


def test_bucket_that_can_only_be_read_is_refused_before_anything_is_sent(cloud, promoted, may):
    actions = ("s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation")
    may(Policy((Statement("Reads", actions, ("arn:aws:s3:::*",)),)))
    with pytest.raises(RequestError, match="s3:DeleteObject"):
        promoted()
    assert (cloud.ids, cloud.left()) == ([], [])


@pytest.fixture
def rights(mine) -> Policy:
    """Return what the project says that whoever promotes needs."""
    who = Identity("123456789012", "arn:aws:iam::123456789012:user/ann")
    return person_policy(who, region=mine.aws_region, bucket=mine.s3.bucket)


def test_printed_rights_in_the_bucket_are_enough_for_all_of_it(
    cloud, promoted, mine, may, rights, dies, works
):
    may(rights)
    with cloud.machines(cloud.saying(dies)), pytest.raises(NodeDiedError):
        promoted()
    with cloud.machines(cloud.saying(works)):
        ending = resume(cloud.promotion().promotion_id, mine, here=HERE, desk=Desk())
    assert ending.is_good


@pytest.mark.parametrize(
    "action", ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
)
def test_no_printed_right_in_the_bucket_is_too_much(cloud, promoted, may, rights, action):
    # AbortMultipartUpload is for uploads that are cut off; GetBucketLocation for a HEAD that does
    # not tell the region, which MinIO's does.
    may(rights.without(action))
    with pytest.raises(RequestError, match=action):
        promoted()
    assert (cloud.ids, cloud.left()) == ([], [])


def test_images_that_only_the_bucket_has_are_refused_and_not_taken_along(
    cloud, promoted, sample_files
):
    where = cloud.storage.location("images", promoted.images.rpartition("/")[2], "Durian", "1.jpg")
    cloud.storage.upload(sample_files[0], where)
    with pytest.raises(RequestError, match="holds 1 images that are not in"):
        promoted()
    assert (cloud.ids, cloud.left()) == ([], [])


def test_output_that_would_delete_other_things_is_refused_before_anything_is_sent(cloud, promoted):
    cloud.storage.write(cloud.storage.location("results", "notes.txt"), b"mine")
    with pytest.raises(RequestError, match=r"holds notes\.txt"):
        promoted(output=cloud.storage.location("results").uri)
    assert (cloud.ids, cloud.left()) == ([], [])


# --- while it is started ---


@pytest.mark.parametrize("action", LAUNCH)
def test_denied_step_is_named_and_what_came_before_is_removed(cloud, promoted, action):
    with cloud.front() as front:
        front.rule = lambda asked: denial(asked) if really(asked, action) else None
        with pytest.raises(AccessDeniedError) as refused:
            promoted()
    assert refused.value.action == action
    assert cloud.left() == []
    record = load_record(cloud.promotion())
    assert (record.outcome, record.ended_at is not None) == ("not started", True)


def test_machine_image_that_has_just_gone_leaves_nothing(cloud, promoted):
    with cloud.front() as front:
        front.rule = lambda asked: (
            refusal(asked, "InvalidAMIID.NotFound", "The image id does not exist")
            if really(asked, "ec2:RunInstances")
            else None
        )
        with pytest.raises(JobError, match="image"):
            promoted()
    assert cloud.left() == []


def test_next_type_of_the_plan_is_taken_where_no_zone_has_the_first(cloud, promoted, works):
    def none_of_the_first(asked: Asked):
        if really(asked, "ec2:RunInstances"):
            types.append(asked.parameters["InstanceType"])
            if types[-1] == "c7i.2xlarge":
                return refusal(asked, "InsufficientInstanceCapacity", "We currently have none")
        return None

    types: list[str] = []
    desk = Desk()
    with cloud.front() as front, cloud.machines(cloud.saying(works)):
        front.rule = none_of_the_first
        ending = promoted(desk)
    assert ending.is_good
    (plan,) = desk.plans
    zones = len(plan.facts.zones)
    assert types == ["c7i.2xlarge"] * zones + [plan.fallbacks[0]]
    assert cloud.left() == []


def test_no_capacity_anywhere_leaves_nothing(cloud, promoted):
    with cloud.front() as front:
        front.rule = lambda asked: (
            refusal(asked, "InsufficientInstanceCapacity", "We currently have none")
            if really(asked, "ec2:RunInstances")
            else None
        )
        with pytest.raises(CapacityError):
            promoted()
    assert cloud.left() == []


def test_throttled_calls_are_made_again(cloud, promoted, works):
    def once(asked: Asked):
        if asked.name in throttled or asked.service not in {"ec2", "iam"}:
            return None
        throttled.add(asked.name)
        code = "RequestLimitExceeded" if asked.service == "ec2" else "Throttling"
        return refusal(asked, code, "Rate exceeded")

    throttled: set[str] = set()
    with cloud.front() as front, cloud.machines(cloud.saying(works)):
        front.rule = once
        assert promoted().is_good
    assert {"ec2:RunInstances", "iam:CreateRole", "ec2:TerminateInstances"} & throttled
    assert cloud.left() == []


# --- the node ---


def test_nodes_of_one_promotion_go_together_with_their_secret(
    cloud, promoted, mine, monkeypatch, works
):
    def work(folder: PromotionFolder, node) -> None:
        each = next(each for each in cloud.instances() if each["InstanceId"] == node.name)
        if each["AmiLaunchIndex"] == 0:
            there.extend(cloud.left())
            works(folder, node)

    there: list[str] = []
    monkeypatch.setenv("TOOLKIT_AWS__NODES", "2")
    two = load_profile("aws", config_file=cloud.folder / "toolkit.toml")
    with cloud.machines(cloud.saying(work)) as machines:
        ending = promote(
            RunRequest(images=str(promoted.images)), two, here=HERE, desk=Desk(), rehearsing=False
        )
    assert ending.is_good
    assert len(machines) == 2
    assert sum(each.startswith("instance i-") for each in there) == 2
    assert any(each.startswith("secret ") for each in there)
    assert json.loads(cloud.storage.read(cloud.promotion().file("job.json")))["nodes"] == 2
    assert cloud.left() == []


def test_node_that_never_says_a_word_is_reported_and_removed(cloud, promoted):
    with pytest.raises(NodeDiedError, match="has not said a word"):
        promoted()
    assert cloud.left() == []
    assert load_record(cloud.promotion()).outcome == "dead"


@pytest.fixture
def dies(cloud, record):
    """Return what a node does that begins a run, and whose machine is gone then."""

    def work(folder: PromotionFolder, node) -> None:
        run = RunFolder(folder.storage, new_run_id())
        run.save(replace(record, run_id=run.run_id, status="running"))
        folder.storage.write(folder.chunk(node.name, 0), b"the last line\n")
        folder.report(Status("running", node.name, run_id=run.run_id))
        cloud.end(node.name)

    return work


def test_node_that_dies_at_work_is_reported_and_another_one_resumes(
    cloud, promoted, mine, dies, works
):
    with cloud.machines(cloud.saying(dies)), pytest.raises(NodeDiedError) as died:
        promoted()
    folder = cloud.promotion()
    assert "the last line" in died.value.message
    assert f"promote --resume {folder.promotion_id}" in died.value.remedy
    assert cloud.left() == []
    run = RunFolder(folder.storage, folder.status().run_id).load()
    assert run.status == "failed"  # so that another node may go on with it

    with cloud.machines(cloud.saying(works)):
        ending = resume(folder.promotion_id, mine, here=HERE, desk=Desk())
    assert (ending.promotion_id, ending.is_good) == (folder.promotion_id, True)
    assert cloud.left() == []
    with pytest.raises(RequestError, match="is done"):
        resume(folder.promotion_id, mine, here=HERE, desk=Desk())


def test_node_that_dies_when_its_run_is_done_has_done_it(cloud, promoted, works, record):
    def work(folder: PromotionFolder, node) -> None:
        works(folder, node)
        last = folder.status()
        folder.report(replace(last, phase="running"))

    with cloud.machines(cloud.saying(work)):
        ending = promoted()
    assert ending.is_good
    assert ending.record.counts == record.counts
    assert cloud.left() == []


def test_failed_node_is_an_ending_that_says_why_and_leaves_nothing(cloud, promoted):
    def work(folder: PromotionFolder, node) -> None:
        folder.report(Status("failed", node.name, error="The bucket is on fire"))

    with cloud.machines(cloud.saying(work)):
        ending = promoted()
    assert (ending.is_good, ending.status.error) == (False, "The bucket is on fire")
    assert cloud.left() == []


# --- the person ---


def test_expired_credentials_leave_the_node_at_work_and_one_comes_back(
    cloud, promoted, mine, works, monkeypatch
):
    expired = refusal(Asked("s3", "", {}), "ExpiredToken", "The provided token has expired.")
    settings = cloud.storage.settings

    def work(folder: PromotionFolder, node) -> None:
        folder.report(Status("running", node.name))
        eventually(lambda: any(node.name in text for text in desk.told))
        front.rule = lambda _: expired
        signed_in.wait(60)

    desk, signed_in = Desk(), threading.Event()
    with in_front_of(settings.endpoint) as front, cloud.front() as ec2:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", front.url)
        ec2.rule = lambda asked: (
            refusal(asked, "RequestExpired", "Request has expired.") if front.rule(asked) else None
        )
        with cloud.machines(cloud.saying(work)):
            with pytest.raises(JobError) as lost:
                promoted(desk)
            assert len(cloud.instances("running")) == 1
            signed_in.set()
        assert "expired" in str(lost.value)
        assert f"promote --follow {cloud.ids[0]}" in str(lost.value)

        front.rule = lambda _: None  # signed in again
        folder = cloud.promotion()
        (node,) = cloud.instances()
        works(folder, Scripted(node["InstanceId"]))
        ending = come_back(folder.promotion_id, mine, desk=Desk())
    assert ending.is_good
    assert cloud.left() == []


def test_what_can_not_be_removed_is_named_and_removed_when_it_can(cloud, promoted, mine, works):
    with cloud.front() as front, cloud.machines(cloud.saying(works)):
        front.rule = lambda asked: denial(asked) if asked.name == "iam:DeleteRole" else None
        with pytest.raises(JobError) as refused:
            promoted()
    folder = cloud.promotion()
    assert f"role fruits-toolkit-{folder.promotion_id}" in str(refused.value)
    assert f"toolkit sweep {folder.promotion_id}" in str(refused.value)
    assert [each for each in cloud.left() if not each.startswith("role")] == []
    ending = come_back(folder.promotion_id, mine, desk=Desk())
    assert ending.is_good
    assert cloud.left() == []


def test_job_of_the_promotion_holds_no_credentials(cloud, promoted, works):
    with cloud.machines(cloud.saying(works)):
        promoted()
    settings = cloud.storage.settings
    for entry in cloud.storage.objects(cloud.promotion().location):
        content = cloud.storage.read(entry.location).decode(errors="replace")
        assert not any(secret in content for secret in settings.credentials()), entry.location
    assert json.loads(cloud.storage.read(cloud.promotion().file("job.json")))["bucket"] == "orchard"
