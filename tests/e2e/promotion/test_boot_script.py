"""The real boot script with a real bundle: a rehearsal, from the user-data to the run."""

from __future__ import annotations

import time

import psutil
import pytest

from localstack.imds import INSTANCE_ID
from tests.support.progress import Told
from tests.support.real_rehearsals import (
    aws,
    bundle,
    here,
    home,
    job,
    no_promotions_of_others,
    source,
)
from toolkit.cloud.bundle import PROMOTIONS
from toolkit.cloud.rehearsal import REHEARSALS, rehearse
from toolkit.cloud.status import BOOT_STAGE
from toolkit.runs import RunFolder, find_run

__all__ = ["aws", "bundle", "here", "home", "job", "no_promotions_of_others", "source"]

# What a developer has set, and what no instance has.
OWN = {
    "AWS_ACCESS_KEY_ID": "AKIAREHEARSALREHEARS",
    "AWS_SECRET_ACCESS_KEY": "rehearsal/rehearsal/rehearsal/rehearsal",
    "AWS_SESSION_TOKEN": "rehearsal",
    "AWS_PROFILE": "no-such-profile",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "PYTHONPATH": "/no/such/folder",
    "SPARK_HOME": "/no/such/spark",
    "TOOLKIT_S3__BUCKET": "another",
    "MY_OWN_VARIABLE": "mine",
}


@pytest.mark.timeout(900)  # a cold cache of uv fetches packages for 2 GB
def test_bundle_is_rehearsed_on_a_sample_in_a_clean_environment(
    bundle, job, source, storage, here, home, monkeypatch
):
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    stages, lines = Told(), []
    environments: dict[str, dict[str, str]] = {}
    looked_at = 0.0

    def look(line: str) -> None:
        nonlocal looked_at
        lines.append(line)
        if time.monotonic() - looked_at < 1:  # lines come in bursts
            return
        looked_at = time.monotonic()
        for each in here.processes():
            try:
                env = each.environ()
                if "TOOLKIT_REHEARSAL" in env:  # the metadata service is not the node's
                    environments[" ".join(each.cmdline())] = env
            except psutil.Error:
                continue

    done = rehearse(
        bundle,
        job,
        source,
        storage=storage,
        stand_in=here,
        progress=stages,
        on_line=look,
        images=13,
    )
    print("\n".join(lines))

    # What it has done.
    record = done.record
    assert record == find_run(storage, record.run_id)
    assert record.status == "done"
    assert len(done.sample) == len(set(done.sample)) == record.counts.listed == 13
    origins = {
        row["origin"]
        for name in ("result", "quarantine")
        for table in RunFolder(storage, record.run_id).dataset(name).tables(columns=["origin"])
        for row in table.to_pylist()
    }
    assert origins == {f"{record.images}/{key}" for key in done.sample}
    assert {f"{source.uri}/{key}" for key in done.sample} == {
        image.origin for image in source.sample(13)
    }
    assert record.counts.quarantined == sum(key.startswith("Bad/") for key in done.sample) > 0
    assert record.labels == len({key.partition("/")[0] for key in done.sample})
    assert stages.titles[:2] == ["Images of the rehearsal: 13", BOOT_STAGE]
    assert "Features: 13" in stages.titles
    (said,) = stages.said
    assert said.startswith(f"13 images may not have {job.components} components")
    assert any("[1/5] System packages … all there" in line for line in lines)

    # Where: with a clean environment and home.
    nodes = [env for command, env in environments.items() if "-m toolkit.cloud.node" in command]
    assert nodes
    for env in environments.values():
        # PySpark gives values of its own to some.
        assert not (OWN.keys() - {"SPARK_HOME", "PYTHONPATH"}) & env.keys()
        assert not set(OWN.values()) & set(env.values())
        assert str(home) not in " ".join(env.values())
    assert {name for env in nodes for name in env if name.startswith("AWS_")} == {
        *("AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_SERVICE_ENDPOINT"),
    }
    assert list(home.iterdir()) == []

    # What it leaves: logs, the run, the bundle.
    (machine,) = here.started
    assert machine.exit_code() == 0
    assert "boot: the end, with exit code 0" in machine.console.read_text()
    assert "[5/5]" in machine.log.read_text()
    place = machine.log.parents[2]
    assert {each.name for each in place.iterdir()} == {"console.log", "lock", "user-data", "var"}
    assert storage.folders(storage.location(REHEARSALS)) == []
    assert INSTANCE_ID in machine.log.read_text()
    assert not any(storage.objects(storage.location(PROMOTIONS)))
