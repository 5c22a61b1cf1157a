"""The facts about instance types that an estimate takes from EC2, here from moto."""

from __future__ import annotations

from toolkit.cloud.estimate import InstanceType, instance_types

C7I = InstanceType("c7i.2xlarge", vcpus=8, cores=4, memory_mib=16384, architecture="x86_64")


def test_facts_of_types_are_ec2s(moto) -> None:
    wanted = ["c7i.2xlarge", "c7a.2xlarge", "c7g.xlarge", "t3.micro", "c9z.huge"]
    found = instance_types(moto.account(), wanted)
    assert list(found) == wanted[:-1]
    assert found["c7i.2xlarge"] == C7I
    assert found["c7a.2xlarge"].cores == found["c7a.2xlarge"].vcpus == 8  # no hyperthreads there
    assert found["c7g.xlarge"].architecture == "arm64"
    assert found["t3.micro"].burstable
