"""Memory and speed of listing a bucket of any number of images, which nobody has to upload.

    python -m benchmarks.listing                             # 50,000, 500,000, 5,000,000 images
    python -m benchmarks.listing --images 20000 200000 --json

A server on the loopback interface answers ListObjectsV2 as S3 does, for images that exist by their
names alone. For each number of images a process of its own lists them all, reads the listing from
its beginning to its end, and takes an evenly spaced thousand. Printed: the peak of its resident
memory over what it held before (the libraries, and a listing of one page).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import time
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

from pydantic import SecretStr

from benchmarks.measure import high_water_mark
from toolkit.images.listing import list_images
from toolkit.profiles import S3Settings
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from toolkit.images.listing import ImageListing

COUNTS = [50_000, 500_000, 5_000_000]
LABELS = 131  # as Fruits-360 has
PAGE = 1_000  # keys that S3 gives an answer, at most
MIB = 1 << 20
PROCESSES = multiprocessing.get_context("spawn")


class Keys:
    """The names of the images below one folder, in their order, made as they are asked for."""

    def __init__(self, folder: str, count: int) -> None:
        self._folder = folder
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        return f"{self._folder}/Fruit {index * LABELS // self._count:03}/{index:09}_100.jpg"


class Answer(BaseHTTPRequestHandler):
    """Answers ``GET /bucket?list-type=2&prefix=…`` for the prefix ``images-N`` with N images."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the page that is asked for."""
        query = dict(parse_qsl(urlsplit(self.path).query))
        folder = query["prefix"].partition("/")[0]
        keys = Keys(folder, int(folder.rpartition("-")[2]))
        end = bisect_left(keys, query["prefix"] + "\U0010ffff")
        begin = max(
            int(query.get("continuation-token", 0)),
            bisect_left(keys, query["prefix"]),
            bisect_right(keys, query.get("start-after", "")),
        )
        after = min(begin + int(query.get("max-keys", PAGE)), end)
        more = f"<NextContinuationToken>{after}</NextContinuationToken>" if after < end else ""
        page = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>synthetic</Name><Prefix>{escape(query['prefix'])}</Prefix>"
            f"<KeyCount>{after - begin}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}"
            + "".join(self._entry(keys[index], index) for index in range(begin, after))
            + "</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    @staticmethod
    def _entry(key: str, index: int) -> str:
        e_tag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        return (
            f"<Contents><Key>{escape(key)}</Key><ETag>&quot;{e_tag}&quot;</ETag>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{4_000 + index % 2_000}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(port: Connection) -> None:
    """Answer until the process is ended."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        port.send(server.server_port)
        server.serve_forever()


@contextmanager
def synthetic_bucket() -> Iterator[Storage]:
    """Give a store with as many images below ``images-N`` as N says."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield Storage(
            S3Settings(
                endpoint=f"http://127.0.0.1:{here.recv()}",
                bucket="synthetic",
                access_key_id=SecretStr("nobody"),
                secret_access_key=SecretStr("nothing"),  # the server asks for none
            )
        )
    finally:
        process.terminate()
        process.join()


def measure(storage: Storage, count: int) -> dict[str, float]:
    """Return what a process of its own needs to list and read so many images."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=list_and_read, args=(storage, count, there), daemon=True)
    process.start()
    there.close()
    try:
        measured: dict[str, float] = here.recv()
        return measured
    finally:
        process.terminate()
        process.join()


def list_and_read(storage: Storage, count: int, answer: Connection) -> None:
    """Use a listing as a run does; send the seconds and the memory that it took."""
    use(list_images(storage, storage.location(f"images-{PAGE}")))
    before = high_water_mark(os.getpid())
    begin = time.perf_counter()
    listing = list_images(storage, storage.location(f"images-{count}"))
    listed = time.perf_counter()
    found = use(listing)
    end = time.perf_counter()
    answer.send(
        {
            "images": found,
            "labels": listing.labels,
            "listed_per_second": round(count / (listed - begin)),
            "read_per_second": round(count / (end - listed)),
            "memory_mib": round((high_water_mark(os.getpid()) - before) / MIB, 1),
            "base_mib": round(before / MIB, 1),
            "disk_bytes_per_image": round(bytes_on_disk() / count, 1),
        }
    )


def use(listing: ImageListing) -> int:
    """Read all of a listing, and choose from it."""
    assert len(list(listing.evenly_spaced(1_000))) == min(1_000, len(listing))  # noqa: S101
    return sum(1 for _ in listing)


def bytes_on_disk() -> int:
    """Return the size of the nameless files that this process holds open."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.stat().st_size for link in links if str(link.readlink()).endswith("(deleted)"))


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with synthetic_bucket() as storage:
        results = [measure(storage, count) for count in arguments.images]
    if arguments.json:
        print(json.dumps(results))
        return
    print("| images | MiB over the base | listed/s | read/s | bytes on disk an image |")
    print("| --- | --- | --- | --- | --- |")
    for each in results:
        print(
            f"| {each['images']:,} | {each['memory_mib']} (base {each['base_mib']}) "
            f"| {each['listed_per_second']:,} | {each['read_per_second']:,} "
            f"| {each['disk_bytes_per_image']} |"
        )


if __name__ == "__main__":
    main()
