"""`toolkit run -p aws` on a laptop: Spark here, the images and the run in S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def test_spark_is_here_and_the_bucket_there(moto, mixed_folder, bad_files, tmp_path):
    moto.account().client("s3").create_bucket(
        Bucket="laptop-fruits", CreateBucketConfiguration={"LocationConstraint": moto.region}
    )
    said = subprocess.run(
        [sys.executable, "-m", "toolkit", "run", str(mixed_folder), "-p", "aws", "--json"],
        env=os.environ
        | {
            "TOOLKIT_HOME": str(tmp_path),
            "TOOLKIT_S3__BUCKET": "laptop-fruits",
            "TOOLKIT_S3__REGION": moto.region,
            "AWS_ALLOW_HTTP": "true",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert said.returncode == 0, said.stderr[-2000:]
    record = json.loads(said.stdout)
    assert record["profile"] == "aws"
    assert record["counts"]["quarantined"] == len(bad_files)
    s3 = moto.account().client("s3")
    names = {
        key["Key"].partition(f"runs/{record['run_id']}/")[2].partition("/")[0]
        for key in s3.list_objects_v2(Bucket="laptop-fruits", Prefix="runs/")["Contents"]
    }
    assert {"features", "result", "quarantine", "run.json", "report.html"} <= names
