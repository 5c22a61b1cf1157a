"""Reading small images from the store, and nothing else: images a second by one of five ways.

reading.py WAY s3a://bucket/few-images s3a://bucket/images

Listing is part of it, starting a session is not: every way reads the few images first.
"""

# Written as its users write it, without types.
# ruff: noqa: ANN001, ANN201, ANN202

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit


def spark_source(name, column, location):
    """Read with a source of Spark's and add up the bytes, so that all of them are read."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F  # noqa: N812 - everybody calls it so

    spark = (
        SparkSession.builder.master(os.environ["SPARK_MASTER"])
        .appName("reading")
        .config("spark.executor.memory", os.environ["EXECUTOR_MEMORY"])
        .config("spark.driver.extraClassPath", os.environ["S3A_JARS"] + "/*")
        .config("spark.executor.extraClassPath", os.environ["S3A_JARS"] + "/*")
        .config("spark.hadoop.fs.s3a.endpoint", os.environ["AWS_ENDPOINT_URL"])
        .config("spark.hadoop.fs.s3a.access.key", os.environ["AWS_ACCESS_KEY_ID"])
        .config("spark.hadoop.fs.s3a.secret.key", os.environ["AWS_SECRET_ACCESS_KEY"])
        .config("spark.hadoop.fs.s3a.path.style.access", "true")
        .getOrCreate()
    )
    df = spark.read.format(name).option("recursiveFileLookup", "true").load(location)
    row = df.select(F.count("*"), F.sum(F.length(column))).first()
    return row[0], row[1]


def boto3_threads(location):
    """List and get with boto3, 8 threads."""
    import boto3

    s3 = boto3.client("s3")
    url = urlsplit(location)
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=url.netloc, Prefix=url.path.strip("/")
    )

    def get(key):
        return len(s3.get_object(Bucket=url.netloc, Key=key)["Body"].read())

    with ThreadPoolExecutor(8) as pool:
        sizes = list(
            pool.map(get, (each["Key"] for page in pages for each in page.get("Contents", [])))
        )
    return len(sizes), sum(sizes)


def ours_bytes(location):
    """List and fetch with the toolkit's store, as many requests in flight as a worker has."""
    from toolkit.images.listing import list_images
    from toolkit.storage import Location

    storage = our_storage()
    origins = (image.origin for image in list_images(storage, Location.parse(location)))
    with ThreadPoolExecutor(32) as pool:
        sizes = list(pool.map(lambda uri: len(storage.read(Location.parse(uri))), origins))
    return len(sizes), sum(sizes)


def ours_pixels(location):
    """List, fetch, decode and resize to 224 x 224, as a worker of the toolkit, with no network."""
    import numpy as np

    from toolkit import features
    from toolkit.images.listing import list_images
    from toolkit.parts import Part
    from toolkit.storage import Location

    class NoNetwork:
        batch_size, input_size, dimensions = 8, (224, 224), 1

        def compute(self, batch):
            return np.zeros((len(batch), 1), np.float32)

    features._engine = lambda _: NoNetwork()  # noqa: SLF001 - all of the reader but the network
    storage = our_storage()
    images = list(list_images(storage, Location.parse(location)))
    read = features.Featurizer(model=None, storage=storage, cache=None)
    (done,) = read([Part(0, tuple(images))])
    return len(images) - len(done.reasons), sum(image.size for image in images)


def our_storage():
    """Return the store that the environment names."""
    from toolkit.profiles import S3Settings
    from toolkit.storage import Storage

    return Storage(
        S3Settings(
            endpoint=os.environ["AWS_ENDPOINT_URL"],
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        )
    )


WAYS = {
    "spark-binaryfile": partial(spark_source, "binaryFile", "content"),
    "spark-image": partial(spark_source, "image", "image.data"),
    "boto3": boto3_threads,
    "ours-bytes": ours_bytes,
    "ours-pixels": ours_pixels,
}

if __name__ == "__main__":
    way, warm_up, location = sys.argv[1:]
    WAYS[way](warm_up)
    begin = time.perf_counter()
    count, total = WAYS[way](location)
    seconds = time.perf_counter() - begin
    print(json.dumps({"images_per_second": count / seconds, "images": count, "bytes": total}))
