"""MinIO's credentials and bucket."""

import os
import stat

from localstack import minio as local_minio
from localstack.minio import _made_credentials


def test_credentials_are_born_private_and_stay(tmp_path):
    old = os.umask(0)
    try:
        made = _made_credentials(tmp_path)
    finally:
        os.umask(old)
    file = tmp_path / "minio" / "credentials.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert _made_credentials(tmp_path) == made == local_minio.credentials(tmp_path)
    assert len(made.secret_access_key) == 40
    assert made.secret_access_key not in repr(made)


def test_two_stacks_have_different_credentials(tmp_path):
    made = [_made_credentials(tmp_path / name) for name in "ab"]
    assert made[0].secret_access_key != made[1].secret_access_key
