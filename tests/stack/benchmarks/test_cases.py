"""What the cases do in the object store."""

import importlib.util
from pathlib import Path

import boto3

import benchmarks
from benchmarks.images import repeated
from benchmarks.stack import Stack

PEERS = Path(benchmarks.__file__).with_name("peers")


def test_a_location_is_emptied_of_the_folders_that_spark_leaves_too(profile, storage):
    stack = Stack(profile=profile, spark_worker=0)
    gone, stays = storage.location("benchmarks", "notebook"), storage.location("benchmarks", "no")
    for each in (gone, stays):
        storage.write(each / "part.parquet", b"content")
    key, secret = storage.settings.credentials()
    client = boto3.client(
        "s3",
        endpoint_url=storage.settings.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    client.put_object(Bucket=gone.bucket, Key=f"{gone.key}/_temporary/0/", Body=b"")
    stack.delete(gone)
    left = client.list_objects_v2(Bucket=gone.bucket, Prefix="benchmarks/")["Contents"]
    assert [each["Key"] for each in left] == ["benchmarks/no/part.parquet"]
    stack.delete(stays)
    stack.delete(stays)


def test_our_readers_read_every_image(storage, monkeypatch):
    monkeypatch.setattr("toolkit.features._engine", None)  # put back at the end
    key, secret = storage.settings.credentials()
    monkeypatch.setenv("AWS_ENDPOINT_URL", storage.settings.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    spec = importlib.util.spec_from_file_location("reading", PEERS / "reading.py")
    reading = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reading)
    images = repeated(storage, 40)
    size = sum(entry.size for entry in storage.objects(images))
    assert reading.ours_bytes(images.uri) == (40, size)
    assert reading.ours_pixels(images.uri) == (40, size)
    storage.write(images / "Bad" / "bad.jpg", b"")
    assert reading.ours_pixels(images.uri) == (40, size)
