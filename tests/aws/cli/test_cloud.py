"""`toolkit stop` and `sweep`, with promotions that were really launched on moto's server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.aws_proxy import denial, leading_through
from tests.support.launches import launch, order
from toolkit.cli.cloud import aws_profile
from toolkit.cloud.status import PromotionFolder, Status
from toolkit.cloud.sweep import find
from toolkit.errors import RequestError
from toolkit.profiles import load_profile
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.cloud.launch import Launched

ID = "20261125-101500-123ab"
OTHER_ID = "20261125-101500-456cd"
KINDS = ["instance", "volume", "security group", "instance profile", "role"]


# --- stop ---


@pytest.fixture
def begun(aws) -> Callable[..., PromotionFolder]:
    """Return a function that makes a promotion in the bucket, whose node has said something."""
    storage = Storage(load_profile("aws").s3)

    def begin(promotion: str = ID, phase: str | None = "running") -> PromotionFolder:
        folder = PromotionFolder(storage, promotion)
        storage.write(folder.file("job.json"), b"{}")
        if phase:
            folder.report(Status(phase, "i-0123456789abcdef0"))
        return folder

    return begin


def test_stop_asks_the_node_and_says_how_to_go_on(call, begun) -> None:
    folder, other = begun(), begun(OTHER_ID)
    done = call("stop", ID)
    assert done.returncode == 0, done.stderr
    assert folder.is_asked_to_stop()
    assert not other.is_asked_to_stop()
    assert done.stdout == f"Promotion {ID} is asked to stop.\n"
    assert f"within seconds if it still works; it did at {folder.status().heartbeat}" in done.stderr
    assert f"promote --resume {ID}" in done.stderr
    assert f"sweep {ID}" in done.stderr


def test_stop_takes_the_start_of_an_id_if_it_fits_one(call, begun) -> None:
    folder = begun()
    begun(OTHER_ID)
    assert call("stop", ID[:-4]).returncode == 0
    assert folder.is_asked_to_stop()
    unclear = call("stop", ID[:8])
    assert unclear.returncode == 2
    assert f"fits several promotions: {ID}, {OTHER_ID}" in unclear.stderr


def test_stop_of_a_node_that_still_boots_waits_in_the_bucket(call, begun) -> None:
    folder = begun(phase=None)
    done = call("stop", ID)
    assert folder.is_asked_to_stop()
    assert "as soon as it has booted" in done.stderr


def test_stop_of_what_is_over_says_so_and_leaves_it(call, begun) -> None:
    folder = begun(phase="interrupted")
    done = call("stop", ID)
    assert done.returncode == 0
    assert done.stdout == f"Promotion {ID} is over already: interrupted.\n"
    assert f"promote --resume {ID}" in done.stderr
    assert not folder.is_asked_to_stop()


def test_stop_of_an_unknown_promotion_is_refused(call, begun) -> None:
    begun()
    done = call("stop", "20261124")
    assert done.returncode == 2
    assert "no promotion '20261124' in s3a://cli-fruits" in done.stderr


def test_stop_names_another_profile_in_what_comes_next(call, begun) -> None:
    begun()
    Path("toolkit.toml").write_text('[profiles.prod.s3]\nendpoint = "aws"\n')
    done = call("stop", ID, "-p", "prod")
    assert f"promote --resume {ID} -p prod" in done.stderr
    assert f"sweep {ID} -p prod" in done.stderr


def test_profile_that_is_not_of_aws_or_has_no_bucket_of_its_own_is_refused(
    call, bucket, monkeypatch
) -> None:
    for command in (("stop", ID), ("sweep",)):
        done = call(*command, "-p", "local")
        assert done.returncode == 2
        assert "'local' keeps its objects at 'stack'" in done.stderr
    monkeypatch.delenv("TOOLKIT_S3__BUCKET")
    done = call("stop", ID)
    assert done.returncode == 2
    assert "profile init aws" in done.stderr
    assert aws_profile("aws", needs_bucket=False).s3.is_aws
    with pytest.raises(RequestError, match="names no bucket"):
        aws_profile("aws")


# --- sweep ---


@pytest.fixture
def launched(aws) -> Callable[..., Launched]:
    """Return a function that launches a promotion of one node."""
    account = aws.account()
    return lambda promotion=ID, owner="ann": launch(account, order(account, promotion, owner=owner))


def kinds(aws, promotion: str = ID) -> list[str]:
    return [each.kind for each in find(aws.account(), promotion)]


def test_where_nothing_is_left_sweep_says_so(call, aws) -> None:
    for arguments, whose in (((), "any promotion"), ((ID,), ID), ((ID, "--yes"), ID)):
        done = call("sweep", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"Nothing of {whose} is left in eu-west-1.\n"


def test_sweep_shows_all_promotions_asks_and_removes_them(call, aws, launched) -> None:
    instances = [launched().instance_ids[0], launched(OTHER_ID, "bob").instance_ids[0]]
    declined = call("sweep", typed="n\n")
    assert declined.returncode == 1
    assert "Nothing was removed." in declined.stderr
    assert declined.stdout.strip() == ""  # Python's input() writes a blank
    assert kinds(aws) == KINDS
    done = call("sweep", typed="y\n")
    assert done.returncode == 0, done.stderr
    told, _, after = done.stderr.partition("Remove all of this?")
    for promotion, owner, instance in zip((ID, OTHER_ID), ("ann", "bob"), instances, strict=True):
        assert f"Promotion {promotion} of {owner}, in eu-west-1: still at work\n" in told
        assert f"  instance {instance} (running)\n" in told
        assert f"  role fruits-toolkit-{promotion}\n" in told
        assert f"Removing instance {instance}" in after
        assert instance in done.stdout
    assert f"Nothing of {ID}, {OTHER_ID} is left in eu-west-1." in done.stdout
    assert find(aws.account()) == []


def test_sweep_without_a_terminal_asks_for_yes_and_shows_what_there_is(call, aws, launched) -> None:
    instance = launched().instance_ids[0]
    for arguments in ((), (ID,), ("--json",)):
        done = call("sweep", *arguments)
        assert done.returncode == 2
        assert f"of ann, in eu-west-1: still at work\n  instance {instance}" in done.stderr
        assert "--yes" in done.stderr
        assert done.stdout == ""
    assert kinds(aws) == KINDS


def test_sweep_of_one_promotion_leaves_the_other(call, aws, launched) -> None:
    launched()
    launched(OTHER_ID)
    unclear = call("sweep", ID[:8], "--yes")
    assert unclear.returncode == 2
    assert f"fits several promotions: {ID}, {OTHER_ID}" in unclear.stderr
    done = call("sweep", ID[:-4], "--yes")
    assert done.returncode == 0, done.stderr
    assert f"Nothing of {ID} is left in eu-west-1." in done.stdout
    assert OTHER_ID not in done.stdout + done.stderr
    assert (kinds(aws), kinds(aws, OTHER_ID)) == ([], KINDS)


def test_promotion_without_a_living_instance_is_not_called_at_work(call, aws, launched) -> None:
    ids = list(launched().instance_ids)
    aws.account().client("ec2").terminate_instances(InstanceIds=ids)
    done = call("sweep")
    assert f"Promotion {ID} of ann, in eu-west-1:\n  security group" in done.stderr


def test_sweep_prints_what_was_removed_as_json(call, launched) -> None:
    instance = launched().instance_ids[0]
    done = call("sweep", "--yes", "--json")
    document = json.loads(done.stdout)
    assert document["region"] == "eu-west-1"
    removed = {each["kind"]: each for each in document["removed"]}
    assert removed.keys() == set(KINDS)
    facts = {"promotion": ID, "owner": "ann", "name": instance, "state": "running"}
    assert facts.items() <= removed["instance"].items()


def test_refusal_in_one_promotion_keeps_sweep_from_no_other(call, aws, launched) -> None:
    launched()
    launched(OTHER_ID)
    group = next(each for each in find(aws.account(), ID) if each.kind == "security group")

    def deny_one(asked):
        if asked.parameters.get("GroupId") == group.name:
            return denial(asked)
        return None

    with leading_through(aws) as front:
        front.rule = deny_one
        done = call("sweep", "--yes")
    assert done.returncode == 1
    assert f"Of promotion {ID} there is still:\n  security group {group.name}" in done.stderr
    assert f"`toolkit sweep {ID}`" in done.stderr
    assert OTHER_ID in done.stdout
    assert "is left in" not in done.stdout
    aws.environment.setenv("AWS_ENDPOINT_URL", aws.url)
    assert (kinds(aws), kinds(aws, OTHER_ID)) == (["security group"], [])


def test_sweep_without_credentials_says_how_to_sign_in(call, bucket) -> None:
    done = call("sweep")
    assert done.returncode == 2
    assert "there are no AWS credentials" in done.stderr
    assert "aws sso login" in done.stderr
