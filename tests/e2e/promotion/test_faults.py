"""What goes wrong with a promotion: nothing is lost, and nothing is left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from localstack.imds import role_credentials
from localstack.minio import Credentials
from tests.support.aws_proxy import Asked, denial, in_front_of, refusal
from tests.support.promotion import LAUNCH, Desk, Node
from toolkit.cloud.aws.account import AccessDeniedError, CapacityError, Identity
from toolkit.cloud.aws.policy import Policy, Statement, person_policy
from toolkit.cloud.follow import NodeDiedError
from toolkit.cloud.journal import load_record
from toolkit.cloud.promotion import promote
from toolkit.cloud.status import PromotionFolder, Status
from toolkit.errors import JobError, RequestError
from toolkit.runs import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator


def really(asked: Asked, action: str) -> bool:
    """Whether a request asks for an action, and not only whether it would be allowed."""
    return asked.name == action and asked.parameters.get("DryRun") != "true"


# --- before anything is started ---


def test_without_credentials_nothing_is_sent_anywhere(cloud, person, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(RequestError) as refused:
        person.promote()
    assert "credentials" in str(refused.value)
    # It does not come to a rehearsal, either, which this machine could not have.
    with pytest.raises(RequestError, match="credentials"):
        promote(person.request, person.profile, here=person.here, desk=Desk())
    assert cloud.ids == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bucket": "no-such-orchard"}, "There is no bucket no-such-orchard"),
        ({"region": "eu-west-3"}, "is in us-east-1, and the setting s3.region says eu-west-3"),
    ],
    ids=["missing", "in another region"],
)
def test_wrong_bucket_is_refused_before_anything_is_sent(cloud, person, change, problem):
    s3 = person.profile.s3.model_copy(update=change)
    wrong = replace(person, profile=person.profile.model_copy(update={"s3": s3}))
    with pytest.raises(RequestError) as refused:
        wrong.promote()
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


def test_bucket_that_can_only_be_read_is_refused_before_anything_is_sent(cloud, person, may):
    actions = ("s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation")
    may(Policy((Statement("Reads", actions, ("arn:aws:s3:::*",)),)))
    with pytest.raises(RequestError, match="s3:DeleteObject"):
        person.promote()
    assert (cloud.ids, cloud.left()) == ([], [])


@pytest.fixture
def rights(person) -> Policy:
    """Return what the project says that whoever promotes needs."""
    who = Identity("123456789012", "arn:aws:iam::123456789012:user/ann")
    return person_policy(who, region=person.profile.aws_region, bucket=person.profile.s3.bucket)


def test_printed_rights_in_the_bucket_are_enough_for_all_of_it(
    cloud, person, may, rights, dies, works
):
    may(rights)
    with cloud.nodes(dies), pytest.raises(NodeDiedError):
        person.promote()
    with cloud.nodes(works):
        ending = person.resume(cloud.promotion().promotion_id)
    assert ending.is_good


@pytest.mark.parametrize(
    "action", ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
)
def test_no_printed_right_in_the_bucket_is_too_much(cloud, person, may, rights, action):
    # AbortMultipartUpload is for uploads that are cut off; GetBucketLocation for a HEAD that does
    # not tell the region, which MinIO's does.
    may(rights.without(action))
    with pytest.raises(RequestError, match=action):
        person.promote()
    assert (cloud.ids, cloud.left()) == ([], [])


def test_images_that_only_the_bucket_has_are_refused_and_not_taken_along(
    cloud, person, sample_files
):
    where = cloud.storage.location("images", Path(person.request.images).name, "Durian", "1.jpg")
    cloud.storage.upload(sample_files[0], where)
    with pytest.raises(RequestError, match="holds 1 images that are not in"):
        person.promote()
    assert (cloud.ids, cloud.left()) == ([], [])


def test_output_that_would_delete_other_things_is_refused_before_anything_is_sent(cloud, person):
    cloud.storage.write(cloud.storage.location("results", "notes.txt"), b"mine")
    with pytest.raises(RequestError, match=r"holds notes\.txt"):
        person.promote(output=cloud.storage.location("results").uri)
    assert (cloud.ids, cloud.left()) == ([], [])


# --- while it is started ---


@pytest.mark.parametrize("action", [LAUNCH[0], LAUNCH[-1]])  # tests of `launch` deny each
def test_denied_step_is_named_and_what_came_before_is_removed(cloud, person, action):
    with cloud.front() as front:
        front.rule = lambda asked: denial(asked) if really(asked, action) else None
        with pytest.raises(AccessDeniedError) as refused:
            person.promote()
    assert refused.value.action == action
    assert cloud.left() == []
    record = load_record(cloud.promotion())
    assert (record.outcome, record.ended_at is not None) == ("not started", True)


def test_next_type_of_the_plan_is_taken_where_no_zone_has_the_first(cloud, person, works):
    def none_of_the_first(asked: Asked):
        if really(asked, "ec2:RunInstances"):
            types.append(asked.parameters["InstanceType"])
            if types[-1] == "c7i.2xlarge":
                return refusal(asked, "InsufficientInstanceCapacity", "We currently have none")
        return None

    types: list[str] = []
    desk = Desk()
    with cloud.front() as front, cloud.nodes(works):
        front.rule = none_of_the_first
        ending = person.promote(desk)
    assert ending.is_good
    (plan,) = desk.plans
    zones = len(plan.facts.zones)
    assert types == ["c7i.2xlarge"] * zones + [plan.fallbacks[0]]
    assert cloud.left() == []


def test_no_capacity_anywhere_leaves_nothing(cloud, person):
    with cloud.front() as front:
        front.rule = lambda asked: (
            refusal(asked, "InsufficientInstanceCapacity", "We currently have none")
            if really(asked, "ec2:RunInstances")
            else None
        )
        with pytest.raises(CapacityError):
            person.promote()
    assert cloud.left() == []


def test_throttled_calls_are_made_again(cloud, person, works):
    def once(asked: Asked):
        if asked.name not in throttled or throttled[asked.name] or not really(asked, asked.name):
            return None
        throttled[asked.name] = True
        code = "RequestLimitExceeded" if asked.service == "ec2" else "Throttling"
        return refusal(asked, code, "Rate exceeded")

    def work(folder: PromotionFolder, node: Node) -> Iterator[None]:
        works(folder, node)
        while True:  # until the promotion ends it
            yield

    # Each costs a pause of botocore's, which is no wait of ours.
    throttled = dict.fromkeys(("iam:CreateRole", "ec2:RunInstances", "ec2:TerminateInstances"))
    with cloud.front() as front, cloud.nodes(work):
        front.rule = once
        assert person.promote().is_good
    assert all(throttled.values())
    assert cloud.left() == []


def test_promotion_without_a_node_is_not_waited_for_but_resumed(cloud, person, works):
    with cloud.front() as front:
        front.rule = lambda asked: denial(asked) if really(asked, LAUNCH[0]) else None
        with pytest.raises(AccessDeniedError):
            person.promote()
    (promotion_id,) = cloud.ids
    with pytest.raises(RequestError, match="has no node") as refused:
        person.come_back(promotion_id)
    assert f"toolkit promote --resume {promotion_id}" in refused.value.remedy
    with cloud.nodes(works):
        ending = person.resume(promotion_id)
    assert (ending.promotion_id, ending.is_good) == (promotion_id, True)
    assert cloud.ids == [promotion_id]
    assert cloud.left() == []


# --- the node ---


def test_nodes_of_one_promotion_go_together_with_their_secret(cloud, person, works):
    def work(folder: PromotionFolder, node: Node) -> Iterator[None]:
        indices.append(node.index)
        if node.index == 0:
            there.extend(cloud.left())
            yield  # the other one begins
            works(folder, node)
        yield

    indices: list[int] = []
    there: list[str] = []
    aws = person.profile.aws.model_copy(update={"nodes": 2})
    two = replace(person, profile=person.profile.model_copy(update={"aws": aws}))
    with cloud.nodes(work):
        ending = two.promote()
    assert ending.is_good
    assert sorted(indices) == [0, 1]
    assert sum(each.startswith("instance i-") for each in there) == 2
    assert any(each.startswith("secret ") for each in there)
    assert json.loads(cloud.storage.read(cloud.promotion().file("job.json")))["nodes"] == 2
    assert cloud.left() == []


def test_node_that_never_says_a_word_is_reported_and_removed(cloud, person):
    with pytest.raises(NodeDiedError, match="has not said a word"):
        person.promote()
    assert cloud.left() == []
    assert load_record(cloud.promotion()).outcome == "dead"


def test_node_that_dies_at_work_is_reported_and_another_one_resumes(cloud, person, dies, works):
    with cloud.nodes(dies), pytest.raises(NodeDiedError) as died:
        person.promote()
    folder = cloud.promotion()
    assert "the last line" in died.value.message
    assert f"promote --resume {folder.promotion_id}" in died.value.remedy
    assert cloud.left() == []
    run = RunFolder(folder.storage, folder.status().run_id).load()
    assert run.status == "failed"  # so that another node may go on with it

    with cloud.nodes(works):
        ending = person.resume(folder.promotion_id)
    assert (ending.promotion_id, ending.is_good) == (folder.promotion_id, True)
    assert cloud.left() == []
    with pytest.raises(RequestError, match="is done"):
        person.resume(folder.promotion_id)


def test_node_that_dies_when_its_run_is_done_has_done_it(cloud, person, works, run_record):
    def work(folder: PromotionFolder, node: Node) -> None:
        works(folder, node)
        last = folder.status()
        folder.report(replace(last, phase="running"))

    with cloud.nodes(work):
        ending = person.promote()
    assert ending.is_good
    assert ending.record.counts == run_record.counts
    assert cloud.left() == []


def test_failed_node_is_an_ending_that_says_why_and_leaves_nothing(cloud, person):
    def work(folder: PromotionFolder, node: Node) -> None:
        folder.report(Status("failed", node.name, error="The bucket is on fire"))

    with cloud.nodes(work):
        ending = person.promote()
    assert (ending.is_good, ending.status.error) == (False, "The bucket is on fire")
    assert cloud.left() == []


# --- the person ---


def test_expired_credentials_leave_the_node_at_work_and_one_comes_back(
    cloud, person, works, monkeypatch
):
    expired = refusal(Asked("s3", "", {}), "ExpiredToken", "The provided token has expired.")
    settings = cloud.storage.settings

    def work(folder: PromotionFolder, node: Node) -> Iterator[None]:
        folder.report(Status("running", node.name))
        yield
        front.rule = lambda _: expired
        while True:
            yield

    with in_front_of(settings.endpoint) as front, cloud.front() as ec2:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", front.url)
        ec2.rule = lambda asked: (
            refusal(asked, "RequestExpired", "Request has expired.") if front.rule(asked) else None
        )
        with cloud.nodes(work), pytest.raises(JobError) as lost:
            person.promote()
        assert len(cloud.instances("running")) == 1
        assert "expired" in str(lost.value)
        assert f"promote --follow {cloud.ids[0]}" in str(lost.value)

        front.rule = lambda _: None  # signed in again
        with cloud.nodes(works):
            ending = person.come_back(cloud.promotion().promotion_id)
    assert ending.is_good
    assert cloud.left() == []


def test_what_can_not_be_removed_is_named_and_removed_when_it_can(cloud, person, works):
    with cloud.front() as front, cloud.nodes(works):
        front.rule = lambda asked: denial(asked) if asked.name == "iam:DeleteRole" else None
        with pytest.raises(JobError) as refused:
            person.promote()
    folder = cloud.promotion()
    assert f"role fruits-toolkit-{folder.promotion_id}" in str(refused.value)
    assert f"toolkit sweep {folder.promotion_id}" in str(refused.value)
    assert [each for each in cloud.left() if not each.startswith("role")] == []
    ending = person.come_back(folder.promotion_id)
    assert ending.is_good
    assert cloud.left() == []


def test_job_of_the_promotion_holds_no_credentials(cloud, person, works):
    with cloud.nodes(works):
        person.promote()
    settings = cloud.storage.settings
    for entry in cloud.storage.objects(cloud.promotion().location):
        content = cloud.storage.read(entry.location).decode(errors="replace")
        assert not any(secret in content for secret in settings.credentials()), entry.location
    assert (
        json.loads(cloud.storage.read(cloud.promotion().file("job.json")))["bucket"]
        == cloud.storage.name
    )
