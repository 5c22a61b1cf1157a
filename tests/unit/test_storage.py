"""Locations, and the settings of Hadoop that lead to the same store."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from toolkit.errors import RequestError
from toolkit.profiles import S3Settings
from toolkit.storage import Location, Storage


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [("s3://b/k/l.jpg", "b", "k/l.jpg"), ("s3a://b/k/", "b", "k"), ("s3://b", "b", "")],
)
def test_location_reads_both_schemes_and_writes_s3a(uri: str, bucket: str, key: str) -> None:
    location = Location.parse(uri)
    assert location == Location(bucket, key)
    assert location.uri == f"s3a://{bucket}/{key}"


@pytest.mark.parametrize("uri", ["http://b/k", "s3://", "s3:///k", "b/k"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(RequestError, match="s3://bucket/prefix"):
        Location.parse(uri)


@pytest.mark.parametrize(
    "settings",
    [
        S3Settings(
            endpoint="http://127.0.0.1:9000",
            bucket="own-bucket",
            access_key_id=SecretStr("the-key"),
            secret_access_key=SecretStr("the-secret"),
        ),
        S3Settings(
            endpoint="https://store.example.org",
            region="eu-west-3",
            access_key_id=SecretStr("the-key"),
            secret_access_key=SecretStr("the-secret"),
        ),
        S3Settings(endpoint="aws", region="eu-west-3", bucket="somebody-elses"),
    ],
    ids=["http", "https", "aws"],
)
def test_store_is_found_again_in_the_settings_of_hadoop(settings: S3Settings) -> None:
    configuration = Storage(settings).hadoop_configuration()
    found = Storage.from_hadoop_configuration(configuration.get)
    assert found == Storage(settings)
    assert "the-key" not in repr(found)
    assert "the-secret" not in repr(found)


KEYS = {"fs.s3a.access.key": "k", "fs.s3a.secret.key": "s"}


@pytest.mark.parametrize(
    ("configuration", "endpoint", "region"),
    [
        ({}, "aws", "us-east-1"),
        ({"fs.s3a.endpoint": "s3.amazonaws.com"}, "aws", "us-east-1"),
        ({"fs.s3a.endpoint": "s3.eu-west-3.amazonaws.com"}, "aws", "eu-west-3"),
        ({"fs.s3a.endpoint": "https://s3-us-gov-west-1.amazonaws.com"}, "aws", "us-gov-west-1"),
        ({"fs.s3a.access.key": "half of a pair"}, "aws", "us-east-1"),
        (KEYS, "https://s3.us-east-1.amazonaws.com", "us-east-1"),
        (
            KEYS | {"fs.s3a.endpoint.region": "eu-west-3"},
            "https://s3.eu-west-3.amazonaws.com",
            "eu-west-3",
        ),
        (KEYS | {"fs.s3a.endpoint": "minio:9000"}, "https://minio:9000", "us-east-1"),
        (
            KEYS | {"fs.s3a.endpoint": "minio:9000", "fs.s3a.connection.ssl.enabled": "false"},
            "http://minio:9000",
            "us-east-1",
        ),
    ],
)
def test_store_of_a_session_that_others_configured(configuration, endpoint, region) -> None:
    settings = Storage.from_hadoop_configuration(configuration.get).settings
    assert (settings.endpoint, settings.region) == (endpoint, region)
    if endpoint != "aws":
        assert settings.credentials() == ("k", "s")


def test_temporary_credentials_of_a_session_are_refused() -> None:
    configuration = KEYS | {"fs.s3a.session.token": "the-token"}
    with pytest.raises(RequestError, match="AWS_SESSION_TOKEN") as refused:
        Storage.from_hadoop_configuration(configuration.get)
    assert "the-token" not in str(refused.value)


@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        ("s3a://b/images", "s3a://b/images/x", True),
        ("s3a://b/images/x", "s3a://b/images", True),
        ("s3a://b/images", "s3a://b/images2", False),
        ("s3a://b", "s3a://b/x", True),
        ("s3a://b/x", "s3a://c/x", False),
    ],
)
def test_locations_overlap_by_whole_names(a: str, b: str, overlap: bool) -> None:  # noqa: FBT001
    assert Location.parse(a).overlaps(Location.parse(b)) is overlap
