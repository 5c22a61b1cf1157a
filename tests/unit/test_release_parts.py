"""The parts of the release tier: each is listed, and what it guards is there."""

from __future__ import annotations

from tests.release.__main__ import GUARDED, PASSED, digest


def test_every_part_is_listed_and_guards_files_that_exist() -> None:
    assert set(GUARDED) == {file.name for file in PASSED.parent.glob("test_*.py")}
    for part in GUARDED:
        assert len(digest(part)) == 64  # it fails for a pattern without files
