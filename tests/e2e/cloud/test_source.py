"""The images of a promotion: what the look for them imports."""

from __future__ import annotations

import json
import subprocess
import sys


def test_images_of_a_folder_are_found_without_importing_any_client(tmp_path):
    for name in ("Apple/1.jpg", "Pear/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"an image")
    code = (
        "import json, sys\n"
        "from toolkit.cloud.source import find_images\n"
        "from toolkit.profiles import load_profile\n"
        "from toolkit.storage import Storage\n"
        "source = find_images(sys.argv[1], Storage(load_profile('aws').s3), limit=2)\n"
        "keys = [source.key(image) for image in source.listing]\n"
        "clients = [name for name in ('boto3', 'obstore') if name in sys.modules]\n"
        "print(json.dumps([keys, clients]))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env={"TOOLKIT_S3__BUCKET": "anybodys", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    keys, clients = json.loads(told.stdout)
    assert (len(keys), clients) == (2, [])
