"""A node's log on its way to the bucket, as Python ships it; the boot script does so as well."""

from __future__ import annotations

import pytest

from toolkit.cloud.node.log import CHUNK_BYTES, NodeLog
from toolkit.cloud.status import PromotionFolder
from toolkit.runs import new_run_id

NODE = "i-0123456789abcdef0"


@pytest.fixture
def log(storage, tmp_path) -> NodeLog:
    return NodeLog(tmp_path / "node.log", PromotionFolder(storage, new_run_id()), NODE)


def chunks(log: NodeLog) -> list[bytes]:
    objects = log.folder.storage.objects(log.folder.logs / NODE)
    return [log.folder.storage.read(each.location) for each in objects]


def test_chunk_that_was_cut_off_is_shipped_again_as_it_was(log):
    """Else a reader that has seen the first form of it would miss what the second adds."""
    log.file.write_bytes(b"seen by a reader, and more")
    log.file.with_name(f"{log.file.name}.shipped").write_text("0 16 0\n")  # died in the midst
    log.ship()
    assert chunks(log) == [b"seen by a reader", b", and more"]


def test_what_is_said_is_shipped_once_in_chunks_of_a_limited_size(log):
    said = b"a line\n" * 50_000
    log.file.write_bytes(said)
    log.ship()
    log.ship()
    assert b"".join(chunks(log)) == said
    assert [len(each) for each in chunks(log)] == [CHUNK_BYTES, len(said) - CHUNK_BYTES]
