"""What must not leave this machine, in bundles with a real wheel."""

from __future__ import annotations

import pytest

from tests.support.developer import KEY_ID, SECRET
from toolkit.cloud.bundle import make_bundle
from toolkit.cloud.leaks import find_leaks
from toolkit.errors import RequestError
from toolkit.profiles import load_profile


def test_bundle_of_this_checkout_has_no_leak_whatever_the_environment(made, ann, aws):
    assert find_leaks(made.folder, profile=aws) == []
    local = load_profile("local", options={"s3": {"endpoint": "http://127.0.0.1:9000"}})
    assert find_leaks(made.folder, profile=local) == []


def test_leak_in_the_wheel_stops_the_bundle_and_no_secret_is_shown(
    checkout, job, aws, ann, tmp_path
):
    (checkout / "toolkit" / "settings.ini").write_text(
        f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    )
    with (checkout / "toolkit" / "pipeline.py").open("a") as file:
        file.write('_ENDPOINT = "http://127.0.0.1:9000"  # noqa: leak\n')
    with pytest.raises(RequestError) as refused:
        make_bundle(tmp_path / "bundle", job, profile=aws, checkout=checkout)
    told = str(refused.value)
    assert ".whl: toolkit/settings.ini, line 2: an AWS access key id" in told
    assert ".whl: toolkit/settings.ini, line 3: the value of AWS_SECRET_ACCESS_KEY" in told
    assert ".whl: toolkit/pipeline.py, line " in told
    assert KEY_ID not in told
    assert SECRET not in told
