"""Profiles: sources, their order, what is refused, and `toolkit profile`."""

from __future__ import annotations

import json
import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.session import Session
from pydantic import SecretStr

from tests.support.settings_file import FILE, no_settings, write
from toolkit.errors import RequestError
from toolkit.profiles import (
    CredentialSource,
    Origin,
    Profile,
    S3Settings,
    SparkSettings,
    credential_source,
    load_profile,
    profile_names,
    trace_profile,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

__all__ = ["no_settings"]

pytestmark = pytest.mark.usefixtures("no_settings")


def test_options_win_over_environment_over_file_over_defaults(monkeypatch) -> None:
    write(
        '[profiles.local.s3]\nbucket = "of-file"\nregion = "eu-west-1"\n'
        "[profiles.local.stack]\nminio_port = 9100"
    )
    monkeypatch.setenv("TOOLKIT_S3__BUCKET", "of-environment")

    profile = load_profile(options={"stack": {"minio_port": 9200}})

    assert profile.s3.bucket == "of-environment"
    assert profile.s3.region == "eu-west-1"
    assert profile.stack.minio_port == 9200
    assert profile.stack.spark_port == 7077


def test_profile_is_chosen_by_name_then_environment_then_file(monkeypatch) -> None:
    write('profile = "aws"\n[profiles.lab.spark]\nmaster = "local[2]"')
    assert load_profile().name == "aws"
    monkeypatch.setenv("TOOLKIT_PROFILE", "lab")
    assert load_profile().spark.master == "local[2]"
    assert load_profile("local").name == "local"
    assert profile_names() == ["aws", "lab", "local"]


def test_file_is_found_in_a_folder_above(monkeypatch) -> None:
    write('[profiles.local.s3]\nbucket = "from-above"')
    below = Path("notebooks", "deep")
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_profile().s3.bucket == "from-above"


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("s3", "secret_access_key"),
        ("s3", "session_token"),
        ("aws", "access_key_id"),
        ("aws", "aws_secret_access_key"),  # as ~/.aws/credentials spells it
        ("spark", "secret_access_key"),
    ],
)
def test_secret_in_the_file_is_refused_by_name_in_every_section(section: str, name: str) -> None:
    write(f'[profiles.local.{section}]\n{name} = "hunter2"')
    with pytest.raises(RequestError, match=rf"{section}\.{name}: no secret") as refused:
        load_profile()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[profiles.local.s3]\nbuckett = 'x'", "s3.buckett"),
        ("[profiles.local.s33]\nbucket = 'x'", "s33"),
        ("[profiles.local.s3]\nbucket = 'Not A Bucket'", "s3.bucket: 'Not A Bucket' is not"),
        ("[profiles.local.stack]\nminio_port = 70000", "stack.minio_port"),
        ("[profiles.local", "toolkit.toml"),
        ("[profiles]\nlocal = 3", "not of the form"),
        ("[profiles.local]\ns3 = 3", "not of the form"),
        ('profiles = ["local"]', "not of the form"),
        ("[profile.local.s3]\nbucket = 'x'", "profile"),
        ("[stack]\nminio_port = 1", "stack"),
    ],
)
def test_invalid_setting_is_named(text: str, named: str) -> None:
    write(text)
    with pytest.raises(RequestError, match=named):
        load_profile()


def test_unknown_profile_lists_those_that_exist() -> None:
    with pytest.raises(RequestError, match="aws, local"):
        load_profile("prod")


STACK_S3 = S3Settings(
    endpoint="http://127.0.0.1:9000",
    access_key_id=SecretStr("local-key"),
    secret_access_key=SecretStr("local-secret"),
)
STACK_SPARK = SparkSettings(master="spark://127.0.0.1:7077", executor_memory="3g")


def test_local_profile_takes_the_stacks_addresses_and_keeps_its_own_settings(monkeypatch) -> None:
    monkeypatch.setenv("TOOLKIT_S3__BUCKET", "mine")
    monkeypatch.setenv("TOOLKIT_SPARK__EXECUTOR_MEMORY", "2g")
    profile = load_profile("local").on_stack(s3=STACK_S3, spark=STACK_SPARK)
    assert profile.s3.endpoint == "http://127.0.0.1:9000"
    assert profile.s3.bucket == "mine"
    assert profile.spark.master == "spark://127.0.0.1:7077"
    assert profile.spark.executor_memory == "2g"


def test_aws_profile_never_takes_the_stacks_credentials() -> None:
    options = {"spark": {"master": "stack"}}
    profile = load_profile("aws", options=options).on_stack(s3=STACK_S3, spark=STACK_SPARK)
    assert profile.s3.is_aws
    assert profile.s3.access_key_id is None
    assert profile.spark.master == "spark://127.0.0.1:7077"


def test_secrets_are_not_shown() -> None:
    profile = Profile(s3=STACK_S3)
    assert "local-secret" not in repr(profile)
    assert "local-secret" not in profile.model_dump_json()


def test_missing_credentials_name_the_variables() -> None:
    with pytest.raises(RequestError, match="TOOLKIT_S3__ACCESS_KEY_ID"):
        S3Settings(endpoint="http://127.0.0.1:1").credentials()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("region = 'mars'", "'mars' is not the name of an AWS region, such as eu-west-3"),
        ("instance_type = 'big'", "'big' is not an EC2 instance type, such as c7i.2xlarge"),
        ("nodes = 0", "greater than or equal to 1"),
        ("max_hours = 0", "greater than 0"),
        ("max_hours = inf", "finite"),
        ("volume_gib = 7", "greater than or equal to 8"),
        ("ami = 'i-0123456789abcdef0'", "not the id of a machine image"),
        ('ami = "ami-0123456789abcdef0\\n"', "not the id of a machine image"),
        ("subnet = 'vpc-01234567'", "not the id of a subnet"),
        ("instance_profile = 'arn:aws:iam::1:instance-profile/x'", "not its ARN"),
        ("instance = 'c7i.large'", "not permitted"),
    ],
)
def test_invalid_setting_of_aws_is_named_with_what_is_meant(line: str, said: str) -> None:
    file = write(f"[profiles.aws.aws]\n{line}")
    with pytest.raises(RequestError) as refused:
        load_profile("aws")
    assert f"aws.{line.partition(' ')[0]}: " in refused.value.message
    assert said in refused.value.message
    assert refused.value.remedy == f"Mend it in {file.resolve()}."


@pytest.mark.parametrize(
    "region", ["us-east-1", "ap-southeast-4", "us-gov-west-1", "cn-northwest-1", "eusc-de-east-1"]
)
def test_region_of_instances_is_the_buckets_unless_it_is_set(
    region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_S3__REGION", region)
    assert load_profile("aws").aws_region == region
    assert load_profile("aws", options={"aws": {"region": "eu-west-3"}}).aws_region == "eu-west-3"


def test_only_the_region_of_aws_has_to_be_one_of_aws() -> None:
    write("[profiles.aws.s3]\nregion = 'garage'\n[profiles.local.s3]\nregion = 'garage'")
    assert load_profile("local").s3.region == "garage"
    with pytest.raises(RequestError, match=r"s3\.region: 'garage' is not the name of an AWS"):
        load_profile("aws")


@pytest.mark.parametrize("first", range(4))
def test_origin_of_a_setting_is_the_source_whose_value_is_in_force(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, file = {}, None
    if first <= 0:
        options = {"s3": {"endpoint": "http://option"}}
    if first <= 1:
        monkeypatch.setenv("TOOLKIT_S3__ENDPOINT", "http://environment")
    if first <= 2:
        file = write('[profiles.aws.s3]\nendpoint = "http://file"').resolve()

    profile, origins = trace_profile("aws", options=options)

    expected = [
        (Origin("option"), "http://option"),
        (Origin("environment", "TOOLKIT_S3__ENDPOINT"), "http://environment"),
        (Origin("file", str(file)), "http://file"),
        (Origin("built in"), "aws"),
    ]
    assert (origins["s3.endpoint"], profile.s3.endpoint) == expected[first]
    assert origins["s3.region"] == Origin("default")


def test_origin_names_the_variable_as_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_AWS", '{"nodes": 2, "spot": true}')
    monkeypatch.setenv("toolkit_aws__nodes", "3")
    profile, origins = trace_profile("aws")
    assert (profile.aws.nodes, str(origins["aws.nodes"])) == (3, "toolkit_aws__nodes")
    assert (profile.aws.spot, str(origins["aws.spot"])) == (True, "TOOLKIT_AWS")


def test_origin_of_the_name_is_who_chose_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trace_profile()[1]["name"] == Origin("default")
    file = write('profile = "aws"').resolve()
    assert trace_profile()[1]["name"] == Origin("file", str(file))
    monkeypatch.setenv("TOOLKIT_PROFILE", "local")
    assert trace_profile()[1]["name"] == Origin("environment", "TOOLKIT_PROFILE")
    assert trace_profile("aws")[1]["name"] == Origin("option")


@pytest.mark.parametrize("value", ["not JSON", "1"])
def test_variable_of_a_section_that_is_none_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_AWS", value)
    with pytest.raises(RequestError, match="aws") as refused:
        load_profile("aws")
    assert "TOOLKIT_" in refused.value.remedy


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Give a server in the place of every metadata service, to see who calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        yield server


KEYS_OF_A_FILE = "aws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = hunter2\n"
SSO = (
    "[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"
    "[sso-session s]\nsso_start_url = https://127.0.0.1:9\nsso_region = eu-west-3\n"
)


@pytest.mark.parametrize(
    ("config", "credentials", "variables", "method"),
    [
        ("", "", {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "hunter2"}, "env"),
        ("", f"[default]\n{KEYS_OF_A_FILE}", {}, "shared-credentials-file"),
        (f"[default]\n{KEYS_OF_A_FILE}", "", {}, "config-file"),
        (SSO, "", {}, "sso"),
        (
            "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = base\n",
            f"[base]\n{KEYS_OF_A_FILE}",
            {},
            "assume-role",
        ),
        (
            "[default]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /none\n",
            "",
            {},
            "assume-role-with-web-identity",
        ),
        ("", "", {"AWS_EC2_METADATA_DISABLED": "true"}, None),
    ],
)
def test_source_of_credentials_is_the_one_that_botocore_takes(
    config: str,
    credentials: str,
    variables: dict[str, str],
    method: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "aws-config").write_text(config)
    (tmp_path / "aws-credentials").write_text(credentials)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = Session().get_credentials()
    assert (found.method if found else None) == method
    assert credential_source().method == method
    assert "hunter2" not in str(credential_source())


@pytest.mark.parametrize(
    ("config", "variables", "method"),
    [
        ("[default]\ncredential_process = touch ran\n", {}, "custom-process"),
        (
            "[default]\nrole_arn = arn:aws:iam::1:role/r\ncredential_source = Ec2InstanceMetadata",
            {},
            "assume-role",
        ),
        ("", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "LISTENER"}, "container-role"),
        ("", {}, "iam-role"),
    ],
)
def test_source_of_credentials_is_told_without_a_call(
    config: str,
    variables: dict[str, str],
    method: str,
    listener: socket.socket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "aws-config").write_text(config)
    for name in variables:
        monkeypatch.setenv(name, os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"])
    assert credential_source().method == method
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert not Path("ran").exists()


def test_broken_aws_configuration_is_told_instead_of_a_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    assert credential_source() == CredentialSource(
        None, "The config profile (no-such-profile) could not be found"
    )


@pytest.fixture
def call(call: Callable[..., CompletedProcess]) -> Callable[..., CompletedProcess]:
    """Return a function that calls `toolkit profile`: on a terminal if `typed` is text."""
    return partial(call, "profile")


def row(table: str, setting: str) -> list[str]:
    """Return the other cells of a setting's row."""
    lines = [line.split() for line in table.splitlines()]
    return next(cells[1:] for cells in lines if cells[:1] == [setting])


def test_show_prints_each_value_with_where_it_comes_from(call, monkeypatch) -> None:
    file = write('[profiles.aws.s3]\nbucket = "of-file"').resolve()
    monkeypatch.setenv("TOOLKIT_AWS__NODES", "3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    shown = call("show", "aws").stdout
    assert row(shown, "name") == ["aws", "option"]
    assert row(shown, "s3.endpoint") == ["aws", "built", "in"]
    assert row(shown, "s3.bucket") == ["of-file", str(file)]
    assert row(shown, "aws.nodes") == ["3", "TOOLKIT_AWS__NODES"]
    assert row(shown, "aws.instance_type") == ["c7i.2xlarge", "default"]
    assert row(shown, "credentials") == ["env", "AWS_ACCESS_KEY_ID"]
    assert "hunter2" not in shown


def test_show_as_json_keeps_the_values_and_adds_their_origins(call, monkeypatch) -> None:
    monkeypatch.setenv("TOOLKIT_S3__BUCKET", "mine")
    document = json.loads(call("show", "--json").stdout)
    assert document["s3"]["bucket"] == "mine"
    assert document["stack"]["minio_port"] == 9000
    assert document["origins"]["s3.bucket"] == {"kind": "environment", "name": "TOOLKIT_S3__BUCKET"}
    assert document["origins"]["s3.region"] == {"kind": "default", "name": None}
    assert document["credentials"] is None  # MinIO has its own
    settings = {f"{s}.{f}" for s in ("s3", "spark", "stack", "aws") for f in document[s]}
    assert document["origins"].keys() == {"name", *settings}


def test_show_tells_of_secrets_only_that_they_are_set(call, monkeypatch) -> None:
    monkeypatch.setenv("TOOLKIT_S3__SECRET_ACCESS_KEY", "hunter2")
    shown = call("show")
    assert row(shown.stdout, "s3.secret_access_key") == [
        *("set,", "not", "shown"),
        "TOOLKIT_S3__SECRET_ACCESS_KEY",
    ]
    document = call("show", "--json").stdout
    assert json.loads(document)["s3"]["secret_access_key"]
    assert json.loads(document)["s3"]["access_key_id"] is None
    assert "hunter2" not in shown.stdout + shown.stderr + document


HEADER = (
    "# Settings of fruits-toolkit: `toolkit profile show` prints them all. No secrets here.\n\n"
)


def test_init_asks_shows_defaults_and_asks_again_what_is_wrong(call) -> None:
    typed = "\nNot A Bucket\nmy-fruits\nmars\neu-west-3\n\nnone\n0\n2\nyes\n"
    done = call("init", typed=typed)
    assert done.returncode == 0, done.stderr
    for said in (
        str(Path("toolkit.toml").resolve()),
        "'Not A Bucket' is not the name of a bucket",
        "[us-east-1]",
        "'mars' is not the name of an AWS region",
        "[c7i.2xlarge]",
        "aws.nodes: Input should be a valid integer",
        "aws.nodes: Input should be greater than or equal to 1",
        "[no]",
    ):
        assert said in done.stderr
    assert Path("toolkit.toml").read_text() == HEADER + (
        '[profiles.aws.s3]\nbucket = "my-fruits"\nregion = "eu-west-3"\n\n'
        '[profiles.aws.aws]\ninstance_type = "c7i.2xlarge"\nnodes = 2\nspot = true\n'
    )
    assert str(Path("toolkit.toml").resolve()) in done.stdout


def test_init_keeps_comments_and_other_tables(call) -> None:
    file = write(FILE)
    done = call("init", "--yes", "--force", "--bucket", "new", "--region", "eu-west-3", "--spot")
    assert done.returncode == 0, done.stderr
    assert file.read_text() == FILE.replace('"old"', '"new"').replace(
        '# region = "us-east-1"\n',
        '# region = "us-east-1"\nregion = "eu-west-3"\n\n'
        '[profiles.aws.aws]\ninstance_type = "c7i.2xlarge"\nnodes = 1\nspot = true\n',
    )


def test_init_keeps_line_ends_link_and_mode(call, tmp_path: Path) -> None:
    target = tmp_path / "shared.toml"
    target.write_bytes(FILE.replace("\n", "\r\n").encode())
    target.chmod(0o640)
    Path("toolkit.toml").symlink_to(target)
    assert call("init", "--yes", "--nodes", "2").returncode == 0
    assert Path("toolkit.toml").is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    content = target.read_bytes()
    assert b"nodes = 2\r\n" in content
    assert content.count(b"\n") == content.count(b"\r\n")


def test_init_writes_to_the_file_in_a_folder_above(call, monkeypatch) -> None:
    file = write(FILE).resolve()
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert str(file) in call("init", "--yes").stdout
    assert list(Path().iterdir()) == []
    assert "instance_type" in file.read_text()


def test_init_without_a_terminal_names_what_is_missing(call) -> None:
    done = call("init", "--region", "eu-west-3")
    assert done.returncode == 2
    assert "--bucket, --instance-type, --nodes, --spot" in done.stderr
    assert "--yes takes the defaults of --instance-type (c7i.2xlarge)" in done.stderr
    done = call("init", "--yes")
    assert done.returncode == 2
    assert "no answer for --bucket." in done.stderr
    assert not Path("toolkit.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bucket", "Not A Bucket"), "s3.bucket: 'Not A Bucket'"),
        (("--bucket", "b-1", "--region", "mars"), "Give --region another value."),
        (("--bucket", "b-1", "--nodes", "0"), "Give --nodes another value."),
        (("local",), "local stack"),
        (("my profile",), "'my profile'"),
    ],
)
def test_init_refuses_a_wrong_option_before_it_asks(call, arguments, said) -> None:
    done = call("init", *arguments, typed="")
    assert done.returncode == 2
    assert said in done.stderr
    assert not Path("toolkit.toml").exists()


def test_init_overwrites_only_when_told_to(call) -> None:
    file = write(FILE)
    refused = call("init", "--yes", "--bucket", "new")
    assert refused.returncode == 2
    assert "s3.bucket: old -> new" in refused.stderr
    assert "--force" in refused.stderr
    answers = "new\n\n\n\n\n"
    declined = call("init", typed=f"{answers}no\n")
    assert declined.returncode == 1
    assert "is as it was" in declined.stderr
    assert file.read_text() == FILE
    assert call("init", typed=f"{answers}yes\n").returncode == 0
    assert load_profile("aws").s3.bucket == "new"


def test_init_with_what_the_file_holds_leaves_it_untouched(call) -> None:
    call("init", "--yes", "--bucket", "my-fruits")
    file = Path("toolkit.toml")
    before = file.stat()
    done = call("init", typed="\n\n\n\n\n")
    assert "is so already" in done.stdout
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_init_makes_any_profile_one_of_amazon_s3(call) -> None:
    file = write('[profiles.lab.s3]\nendpoint = "https://s3.lab"\nregion = "lab"\n')
    assert call("init", "prod", "--yes", "--bucket", "my-fruits").returncode == 0
    assert load_profile("prod").s3.is_aws
    options = ("lab", "--yes", "--bucket", "my-fruits", "--region", "eu-west-3")
    refused = call("init", *options)
    assert "s3.endpoint: https://s3.lab -> aws" in refused.stderr
    assert call("init", *options, "--force").returncode == 0
    assert load_profile("lab").s3.is_aws
    assert "https://s3.lab" not in file.read_text()


def test_init_says_what_the_environment_overrules(call, monkeypatch) -> None:
    monkeypatch.setenv("TOOLKIT_S3__BUCKET", "elsewhere")
    done = call("init", "--yes", "--bucket", "my-fruits")
    assert "TOOLKIT_S3__BUCKET of the environment wins over s3.bucket" in done.stderr
    assert 'bucket = "my-fruits"' in Path("toolkit.toml").read_text()


def test_init_writes_no_credentials_and_says_where_they_come_from(call, monkeypatch) -> None:
    without = call("init", "--yes", "--bucket", "my-fruits")
    assert "standard AWS chain. It finds none now" in without.stderr
    assert "aws configure sso" in without.stderr
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TOOLKIT_S3__SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    done = call("init", "prod", "--yes", "--bucket", "my-fruits")
    assert "now from AWS_ACCESS_KEY_ID (env)" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr + Path("toolkit.toml").read_text()


@pytest.mark.parametrize(
    "text", ['[profiles]\naws.s3.bucket = "old"', 'profiles.aws.s3.bucket = "old"\nprofile = "aws"']
)
def test_init_shows_what_to_write_where_it_could_do_harm(call, text: str) -> None:
    file = write(text)
    done = call("init", "--yes", "--force", "--bucket", "new")
    assert done.returncode == 2
    assert '[profiles.aws.s3]\nbucket = "new"' in done.stderr
    assert file.read_text() == text


def test_init_that_can_not_write_leaves_the_file_as_it_was(call, monkeypatch) -> None:
    file = write(FILE)

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    done = call("init", "--yes")
    assert done.returncode == 2
    assert "can't be written" in done.stderr
    assert file.read_text() == FILE
    assert list(Path().iterdir()) == [file]
