"""Sessions for notebooks: one a process at a time, ended with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

# What a script or the cells of a notebook may do, one after the other.
SCRIPT = """
import sys
from toolkit.errors import RequestError
from toolkit.notebook import import_images, start_spark, stop_spark

start_spark()  # and nothing is done with it
stop_spark()
stop_spark()
spark = start_spark()
assert start_spark() is spark
assert start_spark("local") is spark
try:
    start_spark("aws")
except RequestError as refused:
    assert "'local', not 'aws'" in str(refused)
else:
    raise AssertionError("another profile's session was not refused")

images = import_images(sys.argv[1])
assert import_images(sys.argv[1], name="by another name").endswith("/images/by another name")
print(spark.read.format("binaryFile").load(images + "/*").count(), "images in", images)

spark.stop()  # as users do
again = start_spark()
assert again is not spark
assert again.range(3).count() == 3
"""


def test_a_script_has_one_session_until_it_stops_it_or_ends(
    stack, stack_environment, sample_files, tmp_path
) -> None:
    folder = tmp_path / "two kinds" / sample_files[0].parent.name
    folder.mkdir(parents=True)
    for file in sample_files[:3]:
        (folder / file.name).write_bytes(file.read_bytes())
    mark = {"TEST_OF_NOTEBOOK": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder.parent)],
        env=os.environ | stack_environment | mark,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    images = f"3 images in s3a://{stack.bucket}/images/two kinds"
    assert ended.stdout == f"{images}\n"
    assert f"{images}, 3 of them uploaded now" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert not [each for each in psutil.process_iter() if mark.items() <= environment(each).items()]


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
