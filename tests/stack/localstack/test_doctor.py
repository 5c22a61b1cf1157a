"""What the doctor says of a stack that runs."""

import localstack


def test_a_running_stack_is_healthy_and_its_ports_are_ours(stack, stack_settings):
    checks = localstack.checks(stack_settings)
    assert [each for each in checks if each.ok is not True and each.name != "Memory"] == []
    details = {each.name: each.detail for each in checks}
    assert "in use by this stack" in details["Port of minio"]
