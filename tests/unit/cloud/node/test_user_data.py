"""The boot script as text: within EC2's limits, without a gap, in words that a shell takes."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toolkit.cloud.job import NODE_FOLDER
from toolkit.cloud.node.user_data import LARGEST, NodeBoot, user_data

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = Path(sys.executable).parent
BOOT = NodeBoot(
    bucket="a-start-up.fruits",
    region="eu-west-3",
    promotion_id="20261125-120000-000ab",
    bundle="0" * 64,
    dead_man_minutes=150,
)


def test_script_fits_into_user_data_with_room_to_spare():
    assert user_data(BOOT).startswith("#!/bin/bash\n")
    assert len(user_data(BOOT).encode()) < LARGEST * 3 / 4


def test_script_passes_shellcheck(tmp_path):
    script = tmp_path / "user-data"
    script.write_text(user_data(BOOT))
    checked = subprocess.run(
        [TOOLS / "shellcheck", script], capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""


def test_script_says_what_it_was_given_and_leaves_no_gap():
    script = user_data(BOOT)
    assigned = dict(re.findall(r"^(\w+)=([\w.-]+)", script, re.MULTILINE))
    assert assigned["bucket"] == BOOT.bucket
    assert assigned["region"] == BOOT.region
    assert assigned["promotion"] == BOOT.promotion_id
    assert assigned["bundle"] == BOOT.bundle
    assert assigned["minutes"] == "150"
    assert not re.search(r"@[a-z_]+@", script)


@pytest.fixture
def sourced(tmp_path: Path) -> Callable[[str, str], list[str]]:
    """Return what sources the script in a shell, with a root, and gives the lines it prints then.

    Sourced, the script only defines what it has; this machine is not turned off.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("shutdown", "poweroff"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (programs / name).chmod(0o700)
    script = tmp_path / "user-data"
    script.write_text(user_data(BOOT))

    def source(rehearsal: str, commands: str) -> list[str]:
        told = subprocess.run(
            ["bash", "-c", f'source "$1"; {commands}', "a-shell", script],
            env={"PATH": f"{programs}:/usr/bin:/bin", "TOOLKIT_REHEARSAL": rehearsal},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return told.stdout.splitlines()

    return source


@pytest.mark.parametrize(
    ("rehearsal", "root"), [("", ""), ("/", ""), ("/a/rehearsal", "/a/rehearsal")]
)
def test_places_of_the_machine_are_below_the_folder_of_a_rehearsal(sourced, rehearsal, root):
    *_, told = sourced(rehearsal, 'echo "$home" "$log"')
    assert told == f"{root}{NODE_FOLDER} {root}/var/log/fruits-toolkit.log"


@pytest.mark.parametrize(("rehearsal", "off"), [("", ["shutdown -h +150"]), ("/a/rehearsal", [])])
def test_machine_goes_off_after_its_time_unless_this_is_a_rehearsal(sourced, rehearsal, off):
    assert sourced(rehearsal, ":") == off


def test_script_holds_no_secret_of_this_environment(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"hush-{name}")
    assert "hush" not in user_data(BOOT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "fruits; reboot"},
        {"bucket": ""},
        {"region": "$(reboot)"},
        {"promotion_id": "it's"},
        {"bundle": "0 0"},
        {"dead_man_minutes": 0},
    ],
)
def test_value_that_would_be_more_than_a_word_is_refused(wrong):
    with pytest.raises(ValueError, match=r"is no|can't go off"):
        user_data(replace(BOOT, **wrong))
