"""Large files, and the object store behind a slow line, which a proxy makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.toxiproxy import built_server, slow_store
from toolkit.folders import cache_folder
from toolkit.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_large_file_goes_through_a_line_that_would_take_too_long_for_all_of_it(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All in a twelfth of the time: 5 s a request, and 12 times 0.25 MB/s, shared by two parts.
    monkeypatch.setattr("toolkit.storage._REQUEST_TIMEOUT", "5s")
    file = tmp_path / "model.bin"
    file.write_bytes(bytes(range(256)) * 120_000)
    server = built_server(cache_folder(), log=tmp_path / "build.log")
    log = tmp_path / "toxiproxy.log"
    with slow_store(server, storage.settings.endpoint, upload_kb_s=1_500, log=log) as url:
        slow = Storage(storage.settings.model_copy(update={"endpoint": url}))
        target = slow.location("test-storage", "slow.bin")
        slow.upload(file, target, in_parts=True)
    assert storage.read(target) == file.read_bytes()


def test_upload_beyond_one_put_arrives_whole(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(range(256)) * 300_000)  # 77 MB: more than one part
    target = storage.location("test-storage", "large.bin")
    storage.upload(file, target)
    storage.download(target, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == file.read_bytes()
    storage.delete_all(target)
