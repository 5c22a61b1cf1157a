"""How the Spark worker is sized."""

import pytest

from localstack.spark import Share, share_of_machine


@pytest.mark.parametrize(
    ("cores", "total_gib", "memory_mib"),
    [
        (2, 4, 4096 - 1024 - 2 * 768),
        (8, 8, 1024),  # Python workers need it more
        (4, 8, 8192 - 1638 - 4 * 768),
        (8, 64, 4096),
    ],
)
def test_executors_get_what_python_and_the_system_leave(cores, total_gib, memory_mib):
    assert share_of_machine(cores=cores, total_mib=total_gib * 1024) == Share(cores, memory_mib)
