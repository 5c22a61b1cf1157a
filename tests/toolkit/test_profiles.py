"""Profiles: sources, their order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from toolkit.errors import RequestError
from toolkit.profiles import Profile, S3Settings, SparkSettings, load_profile, profile_names


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOOLKIT_PROFILE", raising=False)


def write(text: str) -> Path:
    file = Path("toolkit.toml")
    file.write_text(text, encoding="utf-8")
    return file


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


def test_file_is_found_in_a_folder_above(monkeypatch, tmp_path: Path) -> None:
    write('[profiles.local.s3]\nbucket = "from-above"')
    below = tmp_path / "notebooks" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_profile().s3.bucket == "from-above"


def test_secret_in_the_file_is_refused_by_name() -> None:
    write('[profiles.local.s3]\nsecret_access_key = "hunter2"')
    with pytest.raises(RequestError, match="secret_access_key") as refused:
        load_profile()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[profiles.local.s3]\nbuckett = 'x'", "s3.buckett"),
        ("[profiles.local.s33]\nbucket = 'x'", "s33"),
        ("[profiles.local.s3]\nbucket = 'Not A Bucket'", "s3.bucket"),
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
    profile = load_profile("aws").on_stack(s3=STACK_S3, spark=STACK_SPARK)
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
