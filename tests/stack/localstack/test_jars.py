"""The S3A jars that the stack was started with."""

import hashlib
import json


def test_the_jars_are_there_as_their_manifest_says(stack):
    manifest = json.loads((stack.jars / "manifest.json").read_text())
    found = {
        jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in stack.jars.glob("*.jar")
    }
    assert found == {name: each["sha256"] for name, each in manifest.items()}
    assert len(found) == 36
    assert 10e6 < sum(each["bytes"] for each in manifest.values()) < 15e6
