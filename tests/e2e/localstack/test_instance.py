"""The stand-in for an EC2 instance: what a boot script finds, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from localstack import instance as module
from localstack.errors import MissingProgramError
from localstack.imds import INSTANCE_ID
from localstack.instance import Instance, instance
from localstack.minio import Credentials
from tests.support import CHECKOUT
from toolkit.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from toolkit.storage import Storage

# By IMDSv2, as the boot script asks.
METADATA = """
metadata() {
    token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \\
        "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token")
    curl -sf -H "X-aws-ec2-metadata-token: $token" \\
        "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/$1"
}
"""
# In sessions of their own, one deaf to what asks it to end.
CHILDREN = """
setsid sleep 1000 &
setsid bash -c 'trap "" TERM; echo deaf >&3; while :; do sleep 1; done' &
"""
EVERYTHING: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "instances"
    assert of(tmp_path / "instances") == []


@pytest.fixture
def start(storage: Storage, folder: Path) -> Callable[..., AbstractContextManager[Instance]]:
    """Return the function that starts an instance with the lines of a script."""

    def start(
        *lines: str, policy: dict[str, Any] = EVERYTHING, **more: Any
    ) -> AbstractContextManager[Instance]:
        script = "\n".join(["#!/bin/bash", "exec 3>&1", METADATA, *lines, ""])
        return instance(script, **settings(storage), folder=folder, policy=policy, **more)

    return start


def settings(storage: Storage) -> dict[str, Any]:
    return {
        "endpoint": storage.settings.endpoint,
        "root": Credentials(*storage.settings.credentials()),
        "cache": cache_folder(),
    }


def of(folder: Path) -> list[psutil.Process]:
    """Return the processes whose environment or command line names something in a folder."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.pid != os.getpid() and str(folder) in " ".join(
                [each.environ().get("TOOLKIT_REHEARSAL", ""), *each.cmdline()]
            ):
                found.append(each)
        except psutil.Error:
            continue
    return found


def said(machine: Instance) -> str:
    assert machine.process.wait(timeout=30) == 0, machine.console.read_text()
    return machine.console.read_text()


def wait_for(word: str, console: Path) -> None:
    deadline = time.monotonic() + 30
    while word not in console.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_script_finds_a_clean_environment_and_an_empty_home(start, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "my/secret")
    monkeypatch.setenv("TOOLKIT_S3__BUCKET", "mine")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("MY_OWN", "mine")
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.setenv("UV_CACHE_DIR", "/caches/uv")
    script = "cat /proc/self/environ; echo; pwd; ls -A $HOME"
    with start(script) as machine:
        environ, *rest = said(machine).splitlines()
        root = machine.log.parents[2]
    found = dict(each.split("=", 1) for each in environ.split("\0") if each)
    bash = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert found.keys() - bash - set(module._NETWORK) == {
        *("PATH", "JAVA_HOME", "HOME", "TOOLKIT_REHEARSAL", "UV_CACHE_DIR"),
        *("AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "NO_PROXY", "no_proxy"),
    }
    assert "mine" not in " ".join(found.values())
    assert found["TOOLKIT_REHEARSAL"] == str(root)
    assert found["HOME"] == f"{root}/root"
    assert found["UV_CACHE_DIR"] == "/caches/uv"
    assert found["NO_PROXY"] == "example.com,127.0.0.1"
    assert rest == ["/"]


def test_script_gets_the_rights_of_its_role_and_no_more(start, storage):
    arn = f"arn:aws:s3:::{storage.name}/test-instance/allowed/*"
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:PutObject", "Resource": arn}],
    }
    script = f"""
metadata instance-id; echo
role=$(metadata iam/security-credentials/)
answer=$(metadata "iam/security-credentials/$role")
member() {{ sed -n "s/.*\\"$1\\" *: *\\"\\([^\\"]*\\)\\".*/\\1/p" <<<"$answer"; }}
for key in allowed/1 denied/1; do
    curl -s -o /dev/null -w '%{{http_code}}\\n' --aws-sigv4 aws:amz:us-east-1:s3 \\
        --user "$(member AccessKeyId):$(member SecretAccessKey)" \\
        --header "X-Amz-Security-Token: $(member Token)" \\
        --upload-file /etc/hostname "$AWS_ENDPOINT_URL_S3/{storage.name}/test-instance/$key"
done
"""
    with start(script, policy=policy) as machine:
        assert said(machine).split() == [INSTANCE_ID, "200", "403"]
    where = storage.location("test-instance")
    assert [each.location.key for each in storage.objects(where)] == ["test-instance/allowed/1"]


def test_instance_can_be_taken_away(start):
    with start("metadata spot/instance-action", interruption_after=0) as machine:
        assert json.loads(said(machine))["action"] == "terminate"


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_everything_that_was_started_ends_with_the_block(start, folder, ending, monkeypatch):
    monkeypatch.setattr(module, "_GRACE_SECONDS", 1.0)
    asked = "trap 'echo asked >&3; exit 143' TERM; wait"
    try:
        with start(CHILDREN, asked) as machine:
            wait_for("deaf", machine.console)
            assert len(of(folder)) >= 4
            if ending is not None:
                raise ending
    except (ValueError, KeyboardInterrupt):
        assert ending is not None
    assert of(folder) == []
    assert machine.exit_code() == 143
    assert "asked" in machine.console.read_text()


def test_what_it_wrote_is_gone_but_its_logs_until_the_next_one(start, folder):
    script = (
        "mkdir -p $TOOLKIT_REHEARSAL/opt/thing; touch $HOME/file; "
        "echo first >$TOOLKIT_REHEARSAL/var/log/fruits-toolkit.log"
    )
    with start(script) as first:
        said(first)
    left = {each.name for each in first.console.parent.iterdir()}
    assert left == {"console.log", "lock", "user-data", "var"}
    assert first.log.read_text() == "first\n"
    with start("exit") as second:
        assert not first.log.exists()
        with start("exit") as third:
            assert second.console.exists()
            said(third)


# Reads the arguments of `instance` from stdin, and works until it is killed.
OWNER = """
import json, sys, time
from pathlib import Path
from localstack.instance import instance
from localstack.minio import Credentials

given = json.loads(sys.stdin.readline())
given |= {name: Path(given[name]) for name in ("folder", "cache")}
given |= {"root": Credentials(*given["root"])}
with instance(**given):
    print("running", flush=True)
    time.sleep(1000)
"""


def test_script_ends_when_its_owner_is_killed_and_the_next_removes_the_rest(storage, folder, start):
    given = settings(storage) | {
        "script": f"#!/bin/bash\nexec 3>&1{CHILDREN}wait\n",
        "folder": str(folder),
        "cache": str(cache_folder()),
        "root": storage.settings.credentials(),
        "policy": EVERYTHING,
    }
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        try:
            owner.stdin.write(f"{json.dumps(given)}\n")
            owner.stdin.flush()
            assert owner.stdout.readline() == "running\n"
            (console,) = folder.glob("*/console.log")
            wait_for("deaf", console)
            # Beside it, the owner has the metadata service as a child.
            children = psutil.Process(owner.pid).children()
            (script,) = (each for each in children if "user-data" in " ".join(each.cmdline()))
        finally:
            owner.kill()
    assert psutil.wait_procs([script], timeout=10)[1] == []
    assert of(folder)  # what has left the script's session, and the metadata service
    (left,) = (each for each in folder.iterdir() if each.is_dir())
    with start("exit") as machine:
        said(machine)
        assert not left.exists()


def test_what_the_script_needs_of_the_machine_is_asked_for_at_once(start, monkeypatch):
    monkeypatch.setattr(module, "_PATH", "/no/such/folder")
    with pytest.raises(MissingProgramError, match="lacks curl") as missing, start("exit"):
        pass
    assert missing.value.remedy == "sudo apt-get install -y curl"
